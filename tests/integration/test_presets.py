"""Every preset and every analysis, from configuration to report, at tiny size on the built-in model.

Each run is complete, and its tables hold the numbers that were frozen (see `frozen.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffprobe.properties import PROPERTIES
from diffprobe.prototypes.distances import MEASURES
from diffprobe.runs.folder import FINISHED
from tests.commands import ROOT, command
from tests.integration.frozen import check_frozen
from tests.report.test_tracking import exit_codes, records

CONF = ROOT / "conf"
PRESETS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("")
    for path in CONF.glob("experiment/**/*.yaml")
    if path.stem != "base"  # what others share
)
OF_PRESETS = ("separation", "transforms", "denoising", "video")
ANALYSES = sorted({path.stem for path in CONF.glob("analysis/*.yaml")} - {*OF_PRESETS, "compare"})

PROBING = ("data.count=6", "steps.sampling=5", "probe.epochs=1", "report.examples=1")
OBJECTS = ("objects.count=6", "statistics.resamples=20", "statistics.permutations=20", "report.examples=1")
ONE_LAYER = "layers.select=[up_blocks.3.resnets.1]"
POCKET = "model=pocket"
# What each folder of presets needs to run offline, by the script that they are for.
OFFLINE = {
    ".": ("train", ()),
    "scene_representation": ("train", (POCKET, "labeler=pocket", "data.prompts=null")),
    "diff_props": ("analyze", (POCKET, "objects=scenes")),
    "semantic_lens": ("analyze", (POCKET,)),
}
DRAWN = ("quick", "table1", "layers_by_timestep", *OF_PRESETS)  # figures of other presets are of the same kinds
FEWER = {
    "quick": ("steps.select=[0,1,3,4]",),
    "layers_by_timestep": ("trajectory.timesteps=[0,900]", "layers.select=[down_blocks.2.resnets.?]"),
}
SMALL = {
    "transforms": ("objects=scenes", *OBJECTS, ONE_LAYER, "analysis.changes={flip: [1], rotation: [30]}"),
    "denoising": (
        "objects=scenes",
        *OBJECTS,
        "steps.sampling=2",
        "analysis.strengths=[0.5]",
        "analysis.strength=0.5",
        "analysis.sampling_steps=[2]",
    ),
    "video": (*OBJECTS, ONE_LAYER, "objects=moving_scenes", "objects.count=2", "analysis.gaps=[1,2]"),
    "emergence": ("data.count=12", "steps.sampling=2", "report.examples=1"),
    "intervention": ("data.count=6", "steps=all", "steps.sampling=2", "analysis.count=2", "analysis.frames=2"),
    "shortcuts": ("data.count=12", "steps.sampling=2", "steps.select=all", "report.examples=1"),
    "similarity": ("data.count=16", "steps.sampling=3"),
    "classification": ("data.count=2", "steps.sampling=2", "analysis.photos=null"),
}


def run(script: str, folder: Path, *overrides: str, cwd: Path, blank_figures: bool = False) -> None:
    done = command(f"{script}.py", *overrides, f"hydra.run.dir={folder}", cwd=cwd, blank_figures=blank_figures)
    assert done.returncode == 0, done.stderr


def logged_keys(folder: Path) -> set[str]:
    """What an offline run of W&B holds, read back; its own keys begin with an underscore."""
    assert exit_codes(folder) == [0]
    rows = [record.history.item for record in records(folder) if record.WhichOneof("record_type") == "history"]
    keys = {item.key or item.nested_key[0] for row in rows for item in row}
    return {key for key in keys if not key.startswith("_")}


def documented() -> list[re.Pattern[str]]:
    """The keys in the table of docs/tracking.md."""
    known = {"<property>": "|".join(PROPERTIES), "<measure>": "|".join(MEASURES), "<metric>": r"[\w/]+"}
    lines = (ROOT / "docs" / "tracking.md").read_text().splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return [re.compile(re.sub(r"<\w+>", lambda found: f"({known.get(found[0], '.+')})", name)) for name in names]


def check_complete(folder: Path) -> None:
    for name in (FINISHED, "report.txt", "report.html", ".hydra/config.yaml"):
        assert (folder / name).stat().st_size > 0
    assert list(folder.glob("figures/*.png"))
    tables = {path.stem: path.read_text().splitlines() for path in folder.glob("*.csv")}
    assert {name for name, lines in tables.items() if len(lines) < 2} <= {"problems", "comparisons", "vanished"}
    keys = logged_keys(folder)
    assert {"tables", "figures"} <= {key.split("/")[0] for key in keys}
    assert not [key for key in keys if not any(pattern.fullmatch(key) for pattern in documented())]
    run = next(record.run for record in records(folder) if record.WhichOneof("record_type") == "run")
    assert run.display_name == f"{folder.parent.name}/{folder.name}"


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """A working directory: presets that ask for the same activations or prototypes share those kept in it."""
    return tmp_path_factory.mktemp("stores")


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_a_preset_runs_from_configuration_to_report(preset, tmp_path, stores):
    script, offline = OFFLINE[str(preset.parent)]
    sizes = SMALL[preset.name] if preset.parent.name == "semantic_lens" else PROBING if script == "train" else OBJECTS
    run(
        script,
        tmp_path / "run",
        f"experiment={preset}",
        *offline,
        *sizes,
        *FEWER.get(preset.name, ()),
        "logger=wandb",
        cwd=stores,
        blank_figures=preset.name not in DRAWN,
    )
    check_complete(tmp_path / "run")
    check_frozen("preset_" + "_".join(preset.parts), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ANALYSES)
def test_an_analysis_runs_from_configuration_to_report(kind, tmp_path):
    run("analyze", tmp_path / "run", f"analysis={kind}", *SMALL[kind], cwd=tmp_path)
    check_complete(tmp_path / "run")
    check_frozen(f"analysis_{kind}", tmp_path / "run")


@pytest.mark.slow
def test_the_main_job_and_the_comparison_of_two_runs_go_from_configuration_to_report(tmp_path):
    for seed in (0, 1):
        small = (*PROBING, "layers=headline", "steps=last", f"seed={seed}")
        run("train", tmp_path / str(seed), *small, cwd=tmp_path, blank_figures=seed == 1)
        check_complete(tmp_path / str(seed))
        check_frozen(f"main_job_seed_{seed}", tmp_path / str(seed))
    runs = f"analysis.runs=[{tmp_path / '0'},{tmp_path / '1'}]"
    run("analyze", tmp_path / "compared", "analysis=compare", runs, cwd=tmp_path)
    check_complete(tmp_path / "compared")
    check_frozen("analysis_compare", tmp_path / "compared")
    assert OmegaConf.load(tmp_path / "compared" / ".hydra" / "config.yaml").job == "comparison"


WAYS = {
    "main_job": ("probe.epochs=2",),
    "one_pass_all_controls": ("probe=ridge", "features=none", "control=all", "layers=headline"),
    "exact": ("probe=exact", "layers=headline"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_training_probes_gives_the_frozen_numbers(way, tmp_path):
    small = ("data.count=12", "steps.sampling=3", "report.examples=0", "logger=csv")
    run("train", tmp_path / "run", *small, *WAYS[way], cwd=tmp_path, blank_figures=True)
    check_frozen(way, tmp_path / "run")
