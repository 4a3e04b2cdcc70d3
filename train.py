"""Probe the activations of a diffusion model: `python train.py`, `python train.py --help`."""

import gc

from diffprobe.signals import listen

listen()  # before the imports that take time
gc.disable()  # until work begins: to look at all that is imported, none of it garbage, takes a fifth of the time

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from diffprobe.cli.errors import plain_errors  # noqa: E402


@plain_errors
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    from diffprobe.cli.running import run_probing

    return run_probing(config)


if __name__ == "__main__":
    main()
