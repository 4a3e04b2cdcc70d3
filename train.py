"""Probe the activations of a diffusion model: `python train.py`, `python train.py --help`."""

from diffprobe.commands.console import start

if __name__ == "__main__":
    start("train")
