"""What all trainings of the pocket world share: rendered scenes on disk, Muon, and a module that resumes exactly."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffprobe.errors import UserError
from diffprobe.files import Damaged, read_sealed, remove_leftovers, replacing, sealed
from diffprobe.pocket.render import render_indices
from diffprobe.pocket.scenes import COLOURS, sample_scene
from diffprobe.threads import usable_cores

SHARD = 1000  # scenes in a file
BATCH = 25
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STACK = 8  # matrices of one shape orthogonalised at once
DECAY_SHARE = 0.2  # share of all steps over which the learning rate falls to zero


@dataclass(frozen=True)
class SceneArrays:
    """Rendered scenes of one stream, scene i in row i.

    Attributes:
        images: [scenes, 3, size, size] uint8.
        salient: [scenes, size, size] bool.
        depth, shading, albedo: [scenes, size, size] float16.
        normals: [scenes, 3, size, size] int8, times 127.
        shape, colour: [scenes, size, size] uint8, class of each pixel, 0 where there is no object.
        shadow: [scenes, size, size] bool.
        classes, colours: [scenes, 3] int64, index into SHAPES / COLOURS, -1 where there is no object.
        captions: one a scene.
    """

    images: Tensor
    salient: Tensor
    depth: Tensor
    shading: Tensor
    albedo: Tensor
    normals: Tensor
    shape: Tensor
    colour: Tensor
    shadow: Tensor
    classes: Tensor
    colours: Tensor
    captions: list[str]


def load_scenes(folder: Path, stream: str, count: int, size: int = 64, workers: int | None = None) -> SceneArrays:
    """The first `count` scenes of a stream; those that the folder does not hold undamaged are rendered first."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    paths = {start: _shard(folder, stream, start, size) for start in range(0, count, SHARD)}
    shards = _read_shards(paths)
    missing = paths.keys() - shards.keys()
    if missing:
        with ProcessPoolExecutor(workers or usable_cores()) as pool:
            list(pool.map(partial(_write_shard, folder, stream, size), missing))
        shards = _read_shards(paths)
    if len(shards) < len(paths):
        raise UserError(f"the scenes in {folder} are damaged as soon as they are written; give another folder")
    arrays = {name: torch.cat([shards[start][name] for start in paths])[:count] for name in shards[0]}
    captions = [sample_scene(index, stream).caption for index in range(count)]
    return SceneArrays(captions=captions, **arrays)


def _read_shards(paths: dict[int, Path]) -> dict[int, dict[str, Tensor]]:
    shards = {start: read_undamaged(path, {"scenes": path.name}) for start, path in paths.items()}
    return {start: shard for start, shard in shards.items() if shard is not None}


def read_undamaged(path: Path, expected: dict[str, str]) -> dict[str, Tensor] | None:
    """The tensors of a file that `write_sealed` wrote with this metadata; None if it is not there or damaged."""
    try:
        return read_sealed(path, expected=expected)[0]
    except (FileNotFoundError, Damaged):
        return None


def write_sealed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors with their checksums, whole or not at all."""
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, sealed(tensors, metadata))


def _shard(folder: Path, stream: str, start: int, size: int) -> Path:
    return folder / f"{stream}-{size}px-{start:07d}.safetensors"


def _write_shard(folder: Path, stream: str, size: int, start: int) -> None:
    torch.set_num_threads(1)
    batches = []
    for first in range(start, start + SHARD, BATCH):
        scenes = render_indices(range(first, first + BATCH), stream, size)
        batches.append(
            {
                "images": (scenes.images * 255).round().to(torch.uint8),
                "salient": scenes.salient,
                "depth": scenes.depth.half(),
                "shading": scenes.shading.half(),
                "albedo": scenes.albedo.half(),
                "normals": (scenes.normals * 127).round().to(torch.int8),
                "shape": scenes.shapes.to(torch.uint8),
                "colour": scenes.colours.to(torch.uint8),
                "shadow": scenes.shadow,
                "classes": scenes.classes,
            }
        )
    arrays = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    colours = torch.full((SHARD, 3), -1)
    for row in range(SHARD):
        for place, item in enumerate(sample_scene(start + row, stream).objects):
            colours[row, place] = COLOURS.index(item.colour)
    path = _shard(folder, stream, start, size)
    write_sealed(path, {**arrays, "colours": colours}, {"scenes": path.name})


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024) for weights, AdamW for the rest.

    Every matrix's update has the root mean square that AdamW's has (Liu et al. 2025, arXiv 2502.16982), so one
    learning rate serves both. Weights have two or four dimensions: a convolution's is the matrix [out, height * width *
    in], which torch.optim.Muon does not take.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], others: Iterable[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(weights)}, {"params": list(others)}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.adam = torch.optim.AdamW(
            groups[1]["params"], lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of all parameters that have a gradient; returns what the closure gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group, rest = self.param_groups
        for weights, matrices in self._updates(group["params"]).values():
            scale = -group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
            for start in range(0, len(weights), STACK):
                stack = orthogonalise(torch.stack(matrices[start : start + STACK]))
                for weight, update in zip(weights[start : start + STACK], stack, strict=True):
                    if weight.ndim == 4:
                        out, channels, height, width = weight.shape
                        update = update.view(out, height, width, channels).permute(0, 3, 1, 2)
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.to(weight.dtype), alpha=scale)
        self.adam.param_groups[0]["lr"] = rest["lr"]  # schedulers know only the outer groups
        self.adam.step()
        return loss

    def _updates(self, weights: list[nn.Parameter]) -> dict[torch.Size, tuple[list[nn.Parameter], list[Tensor]]]:
        """Nesterov momentum of every weight as a matrix, by shape."""
        updates: dict[torch.Size, tuple[list[nn.Parameter], list[Tensor]]] = defaultdict(lambda: ([], []))
        for weight in weights:
            if weight.grad is None:
                continue
            buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight.grad))
            buffer.lerp_(weight.grad, 1 - MOMENTUM)
            matrix = torch.lerp(weight.grad, buffer, MOMENTUM)
            if weight.ndim == 4:
                matrix = matrix.permute(0, 2, 3, 1).flatten(1)
            updates[matrix.shape][0].append(weight)
            updates[matrix.shape][1].append(matrix)
        return updates

    def state_dict(self) -> dict[str, Any]:
        return {"muon": super().state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["muon"])
        self.adam.load_state_dict(state_dict["adam"])


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices [count, rows, columns] with their singular values brought near 1: five Newton-Schulz steps in bf16."""
    matrices = matrices.bfloat16()
    tall = matrices.shape[1] > matrices.shape[2]
    if tall:
        matrices = matrices.mT
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = matrices @ matrices.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, gram, matrices, beta=a)
    return matrices.mT if tall else matrices


class PocketModule(lightning.LightningModule):
    """Warm-up, a plateau and a linear decay; batches drawn as a function of (seed, step, rank) alone.

    So a resumed run sees the batches that an undisturbed one would have seen, and one that stopped before its decay
    can go on to more steps than it was first given.
    """

    def __init__(self, steps: int, batch_size: int, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what was trained into a folder."""

    def generator(self) -> torch.Generator:
        """The source of all randomness of the current step."""
        return torch.Generator().manual_seed((self.global_step * 64 + self.global_rank) * 7919 + 17)

    def rows(self, generator: torch.Generator, count: int) -> Tensor:
        """[batch_size] random row numbers below `count`."""
        return torch.randint(count, (self.batch_size,), generator=generator)

    def optimizer(self) -> torch.optim.Optimizer:
        """Of the parameters that require a gradient."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(
            trained, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay, fused=True
        )

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer()
        warmup, decay = min(200, self.steps // 10 + 1), self.steps * DECAY_SHARE

        def factor(step: int) -> float:
            return max(0.0, min(1.0, (step + 1) / warmup, (self.steps - step) / decay))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Lightning's own clipping refuses fused optimisers under mixed precision.
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.steps))  # type: ignore[arg-type]


def fit(module: PocketModule, folder: Path, devices: int, precision: str) -> None:
    """Trains to `module.steps`, resuming from the folder's last checkpoint where there is one, and saves the result."""
    lightning.seed_everything(0, verbose=False)
    checkpoint = ModelCheckpoint(
        folder, filename="step", every_n_train_steps=max(1, min(500, module.steps // 4)), save_last=True
    )
    trainer = lightning.Trainer(
        max_steps=module.steps,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
        callbacks=[checkpoint],
        logger=CSVLogger(folder, name="", version="log"),
        log_every_n_steps=50,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)  # the last step need not be one of those kept on the way
    if module.global_rank == 0:
        module.save(folder)
