"""Probe the activations of a diffusion model: `python train.py`, `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from diffprobe.doors.errors import plain_errors


@plain_errors
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    from diffprobe.doors.probing import run

    return run(config)


if __name__ == "__main__":
    main()
