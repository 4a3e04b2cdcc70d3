"""The probes of a finished run, and the images that they have not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from diffprobe.analyses.inputs import Inputs
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeBank


# What makes other activations of the same step; probes of one kind say nothing of the other.
_SAME = (
    *("model.guidance", "model.scheduler", "model.size", "model.revision"),
    *("steps.sampling", "trajectory._target_", "features.half"),
)


@dataclass(frozen=True)
class LoadedProbes:
    """
    Attributes:
        bank: the probes.
        name: what they are called in tables.
        validation: the run's scores on validation images, by which layers are chosen.
        used: names of the images that they were trained or selected on.
        pictures: what made these images, see `Prompt.picture`; under another name they are still the same.
    """

    bank: ProbeBank
    name: str
    validation: pd.DataFrame
    used: set[str]
    pictures: set[tuple[str, int]]

    def unseen(self, prompts: list[Prompt]) -> list[Prompt]:
        """The prompts of images that are fit to test these probes on.

        Raises:
            UserError: there are none.
        """
        found = [one for one in prompts if one.name not in self.used and one.image_key not in self.pictures]
        if not found:
            raise UserError(
                "the probes of analysis.probes were trained or selected on all of these images; give others, such as "
                "seed=1 or data.prompts=FILE"
            )
        return found


def read_probes(folder: str | Path, inputs: Inputs) -> LoadedProbes:
    """The probes in a finished run folder of train.py, for images that the model makes by the settings of this run.

    Raises:
        UserError: the folder is no finished run of this model and trajectory, or what it was made from is not there any
            more.
    """
    from diffprobe.activations.sources.generation import Generation
    from diffprobe.analyses.inputs import make_source
    from diffprobe.probes.score_table import read_scores, select
    from diffprobe.probes.storage import load_bank
    from diffprobe.runs.folder import FINISHED, flattened

    folder = Path(folder)
    if not (folder / FINISHED).exists():
        raise UserError(f"analysis.probes={folder}: no finished run of train.py is there")
    made_by, model = inputs.settings_of(folder), inputs.backbone.name
    there, here = flattened(made_by), flattened(inputs.settings)
    for key in _SAME:
        if there[key] != here[key]:
            raise UserError(f"analysis.probes={folder}: {key} is {there[key]} there, {here[key]} here; give the same")
    scores = select(read_scores(folder), control="none")
    kinds = scores[["model", "probe"]].drop_duplicates()
    if len(kinds) != 1:
        raise UserError(f"analysis.probes={folder}: its scores are of {len(kinds)} kinds of probes; give one run")
    ((trained_on, probe),) = kinds.itertuples(index=False)
    if trained_on != model:
        raise UserError(f"analysis.probes={folder}: those are probes of {trained_on}, and this model is {model}")
    tested = set(select(scores, split="test")["image"])
    source = make_source(made_by, lambda line: None)
    used = set(source.names) - tested
    prompts = source.prompts if isinstance(source, Generation) else []
    pictures = {prompt.image_key for prompt in prompts if prompt.name in used}
    return LoadedProbes(load_bank(folder / "probes"), probe, select(scores, split="validation"), used, pictures)
