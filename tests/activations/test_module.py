"""The frozen network is a part of a LightningModule: placed by the Trainer, never trained, never saved."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from diffprobe.activations.module import (
    ActivationModule,
    Consumer,
    ImageBatch,
    ImageData,
    device_of_model,
    quiet_trainer,
    run_pass,
)
from diffprobe.backbone.trajectory import TrajectoryStep, generate
from diffprobe.errors import UserError

STEPS = 3
LAYER = "up_blocks.1.attentions.0"
CPU = torch.device("cpu")


def load(rows: list[int]) -> ImageBatch:
    return ImageBatch(rows, [f"image_{row}" for row in rows], ["a cat" for _ in rows], rows)


def run(backbone, batch: ImageBatch):
    return generate(backbone, batch.prompts, batch.seeds, steps=STEPS, layers=[LAYER])


class Recorded(Consumer):
    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.seen: list[weakref.ref] = []

    def open(self) -> None:
        self.calls.append(("open",))

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        self.calls.append(("consume", batch.rows, step.index))
        self.seen.append(weakref.ref(step.activations[LAYER]))

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        self.calls.append(("finish", batch.rows, images))

    def close(self, error: BaseException | None) -> None:
        self.calls.append(("close", error))


def module_of(backbone, consumer: Consumer, **options) -> ActivationModule:
    return ActivationModule(backbone, partial(run, backbone), consumer, steps=STEPS, **options)


def data_of(images: int = 3, **options) -> ImageData:
    return ImageData(load, [range(images)], 2, **options)


def test_each_step_of_each_batch_reaches_the_consumer_once_and_is_gone_before_the_next(tiny_backbone):
    consumer, alive = Recorded(), []

    def count(*_) -> None:
        alive.append(sum(each() is not None for each in consumer.seen))

    hook = tiny_backbone.denoiser.register_forward_hook(count)
    try:
        assert run_pass(module_of(tiny_backbone, consumer), data_of(), quiet_trainer(CPU)) == 3
    finally:
        hook.remove()
    batches = [[0, 1], [2]]
    expected: list[tuple] = [("open",)]
    for rows in batches:
        expected += [*(("consume", rows, step) for step in range(STEPS)), ("finish", rows, None)]
    assert consumer.calls == [*expected, ("close", None)]
    assert alive == [0] * 2 * STEPS


def test_images_are_made_of_the_last_latents(tiny_backbone):
    made = []

    def images(batch: ImageBatch, latents: Tensor) -> Tensor:
        made.append(latents)
        return latents[:, :3]

    consumer = Recorded()
    run_pass(module_of(tiny_backbone, consumer, images=images), data_of(1), quiet_trainer(CPU))
    *_, last = run(tiny_backbone, load([0]))
    assert torch.allclose(made[0], last.latents, atol=1e-5)
    assert consumer.calls[-2][2] is not None


def test_an_error_closes_the_consumer_once_and_comes_through(tiny_backbone):
    class Full(Recorded):
        def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
            super().consume(batch, step)
            raise UserError("the disk is full")

    consumer = Full()
    with pytest.raises(UserError, match="the disk is full"):
        run_pass(module_of(tiny_backbone, consumer), data_of(), quiet_trainer(CPU))
    assert [call[0] for call in consumer.calls] == ["open", "consume", "close"]
    assert str(consumer.calls[-1][1]) == "the disk is full"


def test_an_error_while_closing_comes_through(tiny_backbone):
    class Broken(Recorded):
        def close(self, error: BaseException | None) -> None:
            super().close(error)
            raise UserError("cannot finish")

    consumer = Broken()
    with pytest.raises(UserError, match="cannot finish"):
        run_pass(module_of(tiny_backbone, consumer), data_of(1), quiet_trainer(CPU))
    assert [call[0] for call in consumer.calls].count("close") == 1


def test_a_trainer_serves_several_passes(tiny_backbone):
    trainer = quiet_trainer(CPU)
    first, second = Recorded(), Recorded()
    for consumer in (first, second):
        run_pass(module_of(tiny_backbone, consumer), data_of(1), trainer)
    assert [call[0] for call in first.calls] == [call[0] for call in second.calls]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "bf16-mixed", "64-true"])
def test_a_trainer_that_would_change_the_precision_is_refused_before_any_work(tiny_backbone, precision):
    consumer = Recorded()
    trainer = lightning.Trainer(
        accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(UserError, match=rf"precision={precision}.*model\.dtype or model\.autocast"):
        run_pass(module_of(tiny_backbone, consumer), data_of(), trainer)
    assert consumer.calls == []
    assert {parameter.dtype for parameter in tiny_backbone.denoiser.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "options", [{"fast_dev_run": True}, {"limit_predict_batches": 1}, {"limit_predict_batches": 0.5}]
)
def test_a_trainer_that_would_leave_images_out_is_refused_before_any_work(tiny_backbone, options):
    consumer = Recorded()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options
    )
    with pytest.raises(UserError, match="has to be whole: ask for fewer images"):
        run_pass(module_of(tiny_backbone, consumer), data_of(4), trainer)
    assert consumer.calls == []


class Probe(ActivationModule):
    """An `ActivationModule` with something to train: what a user may make of it."""

    def __init__(self, backbone) -> None:
        super().__init__(backbone, partial(run, backbone), Recorded(), steps=STEPS)
        self.probe = nn.Linear(2, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        assert self.training
        assert not any(part.training for part in self.networks.modules())
        return self.probe(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD([*self.parameters()], 0.1)


def test_fitting_around_the_networks_neither_trains_nor_switches_nor_saves_them(tiny_backbone, tmp_path: Path):
    before = {name: weights.clone() for name, weights in tiny_backbone.denoiser.state_dict().items()}
    module = Probe(tiny_backbone)
    start = module.probe.weight.detach().clone()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[ModelCheckpoint(tmp_path, filename="probe")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2))  # type: ignore[arg-type]
    saved = torch.load(tmp_path / "probe.ckpt", weights_only=False)["state_dict"]
    assert set(saved) == {"probe.weight", "probe.bias"} == set(module.state_dict())
    assert not torch.equal(module.probe.weight, start)
    for part in (tiny_backbone.denoiser, tiny_backbone.vae, tiny_backbone.pipeline.text_encoder):
        assert not any(each.training for each in part.modules())
        assert not any(parameter.requires_grad for parameter in part.parameters())
    after = tiny_backbone.denoiser.state_dict()
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
    other = Probe(tiny_backbone)
    other.load_state_dict(saved, strict=other.strict_loading)
    assert torch.equal(other.probe.weight, saved["probe.weight"])


def test_all_networks_are_parts_of_the_module(tiny_backbone):
    control = nn.Linear(1, 1)
    module = module_of(tiny_backbone, Recorded(), networks={"permuted": control})
    parts = set(module.modules())
    assert {tiny_backbone.denoiser, tiny_backbone.vae, tiny_backbone.pipeline.text_encoder, control} <= parts
    assert not control.weight.requires_grad
    meta = module_of(tiny_backbone, Recorded(), networks={"permuted": nn.Linear(1, 1)})
    meta.networks["permuted"].to("meta")
    assert meta.networks["permuted"].weight.device.type == "meta"
    assert tiny_backbone.to("cpu").device.type == "cpu"


def test_processes_share_whole_shards_and_batches_stay_inside_them():
    data = ImageData(load, [range(0, 3), range(3, 6), range(6, 7)], 2, unfinished=[0, 6])
    assert data.share(0, 1) == [range(0, 3), range(6, 7)]
    assert [data.share(rank, 2) for rank in range(2)] == [[range(0, 3), range(6, 7)], []]
    trainer = quiet_trainer(CPU)
    data.trainer = trainer
    data.setup("predict")
    assert [batch.rows for batch in data.predict_dataloader()] == [[0, 1], [2], [6]]


def test_masks_come_with_the_batch_when_they_are_asked_for():
    data = ImageData(load, [range(3)], 2, masks=lambda row: torch.full((1, 2, 2), float(row)))
    data.trainer = quiet_trainer(CPU)
    data.setup("predict")
    first, second = data.predict_dataloader()
    assert [float(each.mean()) for each in first.masks] == [0, 1]
    assert len(second.masks) == 1


def test_the_network_follows_the_trainer_and_a_device_that_is_not_the_trainers_is_refused():
    on_cpu = quiet_trainer(CPU)
    assert device_of_model("auto", on_cpu) == device_of_model("cpu", on_cpu) == "cpu"
    with pytest.raises(UserError, match="device 'cuda:7' is not available"):
        device_of_model("cuda:7", on_cpu)
    on_gpu: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    assert device_of_model("auto", on_gpu) == "cuda:0"
    with pytest.raises(UserError, match=r"model\.device=cpu, but the trainer works on cuda:0: leave"):
        device_of_model("cpu", on_gpu)
