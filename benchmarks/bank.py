"""One bank of all probes against one probe after another: python benchmarks/bank.py

1. Training alone. Baseline: a plain PyTorch loop per (layer, step, property) with its own Adam, on the same batches, at
   the same (token) resolution. Both start from the same weights and have to end at the same ones.
2. Training for 30 epochs from a store on disk, and scoring. Baseline: the papers' way, a plain PyTorch loop per probe
   over pixels (512x512, outputs upsampled) on activations in memory, and numpy and scipy on every image. It runs one
   probe of each property and is multiplied by their number; those probes have to score alike. Labels are constant
   inside each token of their layer, where the losses over tokens and over pixels are the same.

Prints seconds and their ratios, measured in this run.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from diffprobe.activations.store.folder import create_store
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.activations.store.shards import tensor_name
from diffprobe.activations.store.writer import StoreWriter
from diffprobe.backbone.layers import Layer
from diffprobe.probes.adam import ProbeBatch, train_bank
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.score_table import score_table, select
from diffprobe.probes.scoring import score_bank
from diffprobe.probes.splits import Split
from diffprobe.properties import PAPERS, as_properties, property_named

LAYERS = {"16x16": (64, 16), "8x8": (80, 8), "4x4": (96, 4)}  # name -> channels, tokens along a side
STEPS, IMAGES, BATCH, EPOCHS = 15, 60, 4, 3
SIZE, WHOLE_EPOCHS = 512, 30
SPLIT = Split(list(range(24)), list(range(24, 28)), list(range(28, 36)))
SAMPLED = ("16x16", STEPS - 1)  # layer and step of the probes that the plain loop trains


def data() -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """Activations [steps, images, channels, h, w] and token targets [images, 1, h, w], by layer."""
    random = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(STEPS, IMAGES, channels, side, side, generator=random)
        for name, (channels, side) in LAYERS.items()
    }
    targets = {
        name: {item: torch.rand(IMAGES, 1, side, side, generator=random) for item in PAPERS}
        for name, (_, side) in LAYERS.items()
    }
    return values, targets


def new_bank() -> ProbeBank:
    return ProbeBank({name: channels for name, (channels, _) in LAYERS.items()}, range(STEPS), list(PAPERS))


def joint(values, targets) -> tuple[ProbeBank, float]:
    bank = new_bank()
    start = time.perf_counter()
    groups = [
        {
            "params": [p for layer in bank.layers for p in bank.head_of(name, layer).parameters()],
            "lr": item.learning_rate,
        }
        for name, item in as_properties(PAPERS).items()
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    for _ in range(EPOCHS):
        for rows in torch.arange(IMAGES).split(BATCH):
            losses = []
            for layer in bank.layers:
                outputs = bank(layer, values[layer][:, rows])
                losses += [
                    item.loss(outputs[name], targets[layer][name][rows]).mean(-1).sum()
                    for name, item in as_properties(PAPERS).items()
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
        for name, item in as_properties(PAPERS).items():
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


def stored(folder: Path) -> tuple[StoredActivations, dict[str, torch.Tensor]]:
    """A store of all layers and steps, some channels telling of the labels, and label maps [images, 512, 512]."""
    random = torch.Generator().manual_seed(0)
    count = len(SPLIT.train) + len(SPLIT.validation) + len(SPLIT.test)
    tokens = {name: torch.randn(count, 16, 16, generator=random) for name in PAPERS}
    layers = [
        Layer(name, "self_attention", "decoder", channels, side, side) for name, (channels, side) in LAYERS.items()
    ]
    manifest = Manifest(
        model={"name": "random"},
        trajectory={"kind": "random"},
        images=[{"id": f"image_{row}"} for row in range(count)],
        layers=layers,
        steps=list(range(STEPS)),
        timesteps=[float(step) for step in range(STEPS)],
        dtype="float16",
        images_per_shard=12,
    )
    store = create_store(folder / "store", manifest)
    with StoreWriter(store) as writer:
        for shard in store.shards:
            for layer in layers:
                for step in manifest.steps:
                    values = torch.randn(len(shard.rows), layer.channels, layer.height, layer.width, generator=random)
                    for channel, maps in enumerate(tokens.values()):
                        values[:, channel] += 2 * F.adaptive_avg_pool2d(maps[list(shard.rows)], layer.height)
                    writer.put(tensor_name(layer.name, step), shard.rows, values.half())
    pixels = {name: F.interpolate(maps[:, None], SIZE, mode="nearest")[:, 0] for name, maps in tokens.items()}
    return StoredActivations(store), pixels


class Batches(lightning.Callback):
    """The rows of every training batch, by epoch: what both trainings have to see in one order."""

    def __init__(self) -> None:
        self.epochs: list[list[torch.Tensor]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: object, module: object, batch: ProbeBatch, index: int) -> None:
        self.epochs[-1].append(batch.rows)


def plain_probe(
    name: str,
    values: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    batches: list[list[torch.Tensor]],
) -> torch.Tensor:
    """One probe trained over pixels from `weight`: activations [images, c, h, w], target [images, 512, 512]."""
    weight = weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=property_named(name).learning_rate)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        outputs = F.interpolate(torch.einsum("oc,bchw->bohw", weight, values[rows]), SIZE, mode="nearest")
        if name == "saliency":
            return F.cross_entropy(outputs, target[rows].long())
        return F.huber_loss(outputs[:, 0], target[rows])

    best, kept = float("inf"), weight.detach().clone()
    for epoch, order in enumerate(batches):
        for rows in order:
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
        if epoch % 2:
            with torch.no_grad():
                validation = loss(torch.tensor(SPLIT.validation)).item()
            if validation < best:
                best, kept = validation, weight.detach().clone()
    return kept


def plain_scores(name: str, outputs: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Scores of one image, outputs and target over pixels."""
    if name == "saliency":
        mask, truth = outputs[1] > outputs[0], target > 0
        return {
            "dice": 2 * (mask & truth).sum() / (mask.sum() + truth.sum()),
            "dice_background": 2 * (~mask & ~truth).sum() / ((~mask).sum() + (~truth).sum()),
        }
    flat, truth = outputs[0].ravel(), target.ravel()
    return {
        "spearman": float(stats.spearmanr(flat, truth)[0]),  # type: ignore[arg-type]
        "pearson": float(stats.pearsonr(flat, truth)[0]),  # type: ignore[arg-type]
        "rmse": float(np.sqrt(np.mean((flat - truth) ** 2))),
    }


def plain(
    activations: StoredActivations, labels: dict[str, torch.Tensor], batches: list[list[torch.Tensor]]
) -> tuple[dict[tuple, float], float]:
    """Scores of one probe a property by (property, image, metric), and the seconds that all probes would take."""
    layer, step = SAMPLED
    values = activations.values[layer][step, :].float()
    start_weights = ProbeBank({layer: values.shape[1]}, [step], list(PAPERS))
    found: dict[tuple, float] = {}
    start = time.perf_counter()
    for name, item in as_properties(PAPERS).items():
        target = item.target(labels[name])
        target = item.standardisation(target[SPLIT.train]).apply(target)
        weight = plain_probe(name, values, target, start_weights.weight(name, layer)[0].detach(), batches)
        for row in [*SPLIT.validation, *SPLIT.test]:
            outputs = F.interpolate(torch.einsum("oc,chw->ohw", weight, values[row])[None], SIZE, mode="nearest")[0]
            scores = plain_scores(name, outputs.numpy(), target[row].numpy())
            found |= {(name, activations.names[row], metric): value for metric, value in scores.items()}
    return found, (time.perf_counter() - start) * len(LAYERS) * STEPS


def mean_scores(scores: dict[tuple, float]) -> dict[tuple[str, str], float]:
    """Scores by (property, image, metric) -> their means over images, by (property, metric)."""
    values: dict[tuple[str, str], list[float]] = {}
    for (name, _, metric), value in scores.items():
        values.setdefault((name, metric), []).append(value)
    return {key: sum(listed) / len(listed) for key, listed in values.items()}


def whole(folder: Path) -> None:
    """Part 2: training and scoring everything."""
    activations, labels = stored(folder)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batches = Batches()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=WHOLE_EPOCHS,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=[batches],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    bank = train_bank(activations, labels, SPLIT, list(PAPERS), trainer=trainer)
    scores = score_bank(bank, activations, labels, SPLIT, model="random")
    together = time.perf_counter() - start
    expected, apart = plain(activations, labels, batches.epochs)
    rows = select(score_table(scores), layer=SAMPLED[0], step=SAMPLED[1]).fillna({"value": 0.0})
    found = dict(
        zip(rows[["property", "image", "metric"]].itertuples(index=False, name=None), rows["value"], strict=True)
    )
    ours, theirs = mean_scores({key: found[key] for key in expected}), mean_scores(expected)
    worst = max(abs(ours[key] - theirs[key]) for key in theirs)
    assert worst < 5e-4, (ours, theirs)
    shown = ", ".join(f"{name} {metric} {value:.2f}" for (name, metric), value in ours.items() if metric != "rmse")
    probes = len(LAYERS) * STEPS * len(PAPERS)
    print(f"{probes} probes, {WHOLE_EPOCHS} epochs of {len(SPLIT.train)} images and their scores, from a store on disk")
    print(
        f"plain loop over {SIZE}x{SIZE} pixels and scipy {apart:.0f} s ({len(PAPERS)} probes measured, times "
        f"{probes // len(PAPERS)}), one bank {together:.1f} s: {apart / together:.0f} times faster; "
        f"mean scores of these probes {shown}, equal to {worst:.0e}"
    )


def main() -> None:
    values, targets = data()
    bank, together = joint(values, targets)
    weights, apart = separate(values, targets)
    for (layer, name, step), weight in weights.items():
        assert torch.allclose(bank.weight(name, layer)[step], weight, atol=1e-4), (layer, name, step)
    probes = len(weights)
    print(f"{probes} probes, {EPOCHS} epochs of {IMAGES} images in batches of {BATCH}; same weights to 1e-4")
    print(f"one after another {apart:.2f} s, one bank {together:.2f} s: {apart / together:.1f} times faster")
    with tempfile.TemporaryDirectory() as folder:
        whole(Path(folder))


if __name__ == "__main__":
    main()
