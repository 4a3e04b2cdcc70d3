"""Probe the activations of a diffusion model: `diffprobe train`, or `python train.py` in a checkout."""

import hydra
from omegaconf import DictConfig

from diffprobe.cli.conf import package_conf
from diffprobe.cli.errors import plain_errors


@plain_errors
@hydra.main(version_base="1.3", config_path=str(package_conf()), config_name="train")
def main(config: DictConfig) -> float | None:
    from diffprobe.cli.running import run_probing

    return run_probing(config)


if __name__ == "__main__":  # for a further device of `diffprobe train`
    main()
