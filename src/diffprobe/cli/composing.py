"""The configuration that overrides make, for commands beside train.py and analyze.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from diffprobe.cli.keys import check_typed, typed_arguments
from diffprobe.errors import UserError


def conf_folder() -> Path:
    """The folder of configurations, of the current folder or of the checkout that this package is in.

    Raises:
        UserError: there is none.
    """
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (folder / "conf" / "train.yaml").is_file():
            return folder / "conf"
    raise UserError("there is no conf/train.yaml here; run this in the folder that holds train.py")


def compose_typed(overrides: Sequence[str], conf: Path, script: str = "train") -> tuple[DictConfig, DictConfig]:
    """What `train.py OVERRIDES`, or another script, composes: the settings, and those of Hydra.

    Raises Hydra's errors, and UserError as `check_typed`.
    """
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(script, typed_arguments(list(overrides), conf), return_hydra_config=True)
    hydra = config.hydra
    with open_dict(config):
        del config.hydra
    check_typed(config, hydra)
    return config, hydra
