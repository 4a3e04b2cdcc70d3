"""The configuration that overrides make, for commands beside train.py and analyze.py."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, open_dict

from diffprobe.cli.conf import package_conf, search_own_conf
from diffprobe.cli.keys import check_typed, typed_arguments


def compose_typed(overrides: Sequence[str], script: str = "train") -> tuple[DictConfig, DictConfig]:
    """What `train.py OVERRIDES`, or another script, composes: the settings, and those of Hydra.

    Raises Hydra's errors, and UserError as `check_typed`.
    """
    from hydra import compose, initialize_config_dir

    search_own_conf()
    with initialize_config_dir(str(package_conf()), version_base="1.3"):
        config = compose(script, typed_arguments(list(overrides)), return_hydra_config=True)
    hydra = config.hydra
    with open_dict(config):
        del config.hydra
    check_typed(config, hydra)
    return config, hydra
