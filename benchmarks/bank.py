"""One bank of all probes against one probe after another: python benchmarks/bank.py

Baseline: a plain PyTorch loop per (layer, step, property) with its own Adam, on the same batches, at the same (token)
resolution. Both start from the same weights; the benchmark stops if they do not end at the same ones. Prints seconds
and their ratio, measured in this run.
"""

from __future__ import annotations

import time

import torch

from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.properties import PROPERTIES

LAYERS = {"16x16": (64, 16), "8x8": (80, 8), "4x4": (96, 4)}  # name -> channels, tokens along a side
STEPS, IMAGES, BATCH, EPOCHS = 15, 60, 4, 3


def data() -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """Activations [steps, images, channels, h, w] and token targets [images, h, w], by layer."""
    random = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(STEPS, IMAGES, channels, side, side, generator=random)
        for name, (channels, side) in LAYERS.items()
    }
    targets = {
        name: {item: torch.rand(IMAGES, side, side, generator=random) for item in PROPERTIES}
        for name, (_, side) in LAYERS.items()
    }
    return values, targets


def new_bank() -> ProbeBank:
    return ProbeBank({name: channels for name, (channels, _) in LAYERS.items()}, range(STEPS), list(PROPERTIES))


def joint(values, targets) -> tuple[ProbeBank, float]:
    bank = new_bank()
    start = time.perf_counter()
    groups = [
        {"params": [p for layer in bank.layers for p in bank.parameters_of(name, layer)], "lr": item.learning_rate}
        for name, item in PROPERTIES.items()
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    for _ in range(EPOCHS):
        for rows in torch.arange(IMAGES).split(BATCH):
            losses = []
            for layer in bank.layers:
                outputs = bank(layer, values[layer][:, rows])
                losses += [
                    item.loss(outputs[name], targets[layer][name][rows]).mean(-1).sum()
                    for name, item in PROPERTIES.items()
                ]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
    return bank, time.perf_counter() - start


def separate(values, targets) -> tuple[dict[tuple[str, str, int], torch.Tensor], float]:
    bank = new_bank()
    weights = {}
    start = time.perf_counter()
    for layer in bank.layers:
        for name, item in PROPERTIES.items():
            for step in range(STEPS):
                weight = bank.weight(name, layer)[step].detach().clone().requires_grad_()
                optimizer = torch.optim.Adam([weight], lr=item.learning_rate, fused=True)
                for _ in range(EPOCHS):
                    for rows in torch.arange(IMAGES).split(BATCH):
                        outputs = torch.einsum("oc,bchw->bohw", weight, values[layer][step, rows])
                        loss = item.loss(outputs, targets[layer][name][rows]).mean()
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                weights[layer, name, step] = weight.detach()
    return weights, time.perf_counter() - start


def main() -> None:
    values, targets = data()
    bank, together = joint(values, targets)
    weights, apart = separate(values, targets)
    for (layer, name, step), weight in weights.items():
        assert torch.allclose(bank.weight(name, layer)[step], weight, atol=1e-4), (layer, name, step)
    probes = len(weights)
    print(f"{probes} probes, {EPOCHS} epochs of {IMAGES} images in batches of {BATCH}; same weights to 1e-4")
    print(f"one after another {apart:.2f} s, one bank {together:.2f} s: {apart / together:.1f} times faster")


if __name__ == "__main__":
    main()
