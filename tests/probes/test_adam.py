from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffprobe.activations.activations import Activations
from diffprobe.errors import UserError
from diffprobe.probes import adam as training
from diffprobe.probes.adam import Collate, ProbeBankModule, train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.splits import Split
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, planted, token_targets

RECIPE = [field.name for field in fields(ProbeConfig)]
PROPERTIES = ["saliency", "depth", "shading"]
SPLIT = Split([0, 1, 2, 3, 4], [5, 6, 7], [8, 9])


def trained(activations: Activations, targets: dict[str, Tensor], split: Split = SPLIT, **options) -> ProbeBank:
    probe_config = ProbeConfig(epochs=3, **{key: options.pop(key) for key in list(options) if key in RECIPE})
    return train_bank(activations, targets, split, options.pop("properties", PROPERTIES), probe_config, **options)


def quiet_trainer(**options) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def equal(first: ProbeBank, second: ProbeBank) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def validation_losses(bank: ProbeBank, activations: Activations, targets: dict[str, Tensor], name: str) -> Tensor:
    """Mean validation loss of every probe of property `name`, [layers, steps], computed in one go."""
    rows = SPLIT.validation
    target = bank.standardisations[name].apply(bank.properties[name].target(targets[name]))
    losses = []
    for layer in bank.layers:
        outputs = bank(layer, activations.values[layer][:, rows])[name]
        grid = (outputs.shape[-2], outputs.shape[-1])
        losses.append(bank.properties[name].loss(outputs, token_targets(target, [grid])[grid][rows]).mean(-1))
    return torch.stack(losses)


def test_training_is_reproducible_and_depends_on_the_seed() -> None:
    activations, targets = noise(10), label_maps(10)
    first = trained(activations, targets)
    assert equal(first, trained(activations, targets))
    assert not equal(first, trained(activations, targets, seed=1))


def test_training_moves_every_probe_and_freezes_the_bank() -> None:
    activations, targets = noise(10), label_maps(10)
    bank = trained(activations, targets, validate_every=3)
    start = ProbeBank(bank.channels, bank.steps, PROPERTIES)
    for name, value in start.state_dict().items():
        assert (bank.state_dict()[name] != value).flatten(1).any(1).all(), name
    assert not any(parameter.requires_grad for parameter in bank.parameters())


def test_a_probe_does_not_depend_on_what_is_trained_beside_it() -> None:
    activations, targets = noise(10), label_maps(10)
    whole, part = trained(activations, targets), trained(activations, targets, properties=["shading"])
    torch.testing.assert_close(part.weight("shading", DEEP), whole.weight("shading", DEEP), atol=1e-6, rtol=1e-5)


def test_test_images_are_never_seen() -> None:
    activations, targets = noise(10), label_maps(10)
    before = trained(activations, targets)
    for values in activations.values.values():
        values[:, SPLIT.test] = 1e6
    for maps in targets.values():
        maps[SPLIT.test] = -1e6
    after = trained(activations, targets)
    assert equal(before, after)
    assert before.standardisations == after.standardisations


def test_validation_images_choose_but_do_not_train() -> None:
    activations, targets = noise(10), label_maps(10)
    before = trained(activations, targets, validate_every=3)
    targets["depth"][SPLIT.validation] += 100
    after = trained(activations, targets, validate_every=3)
    assert before.standardisations == after.standardisations
    assert equal(before, after)  # validated once, after the last epoch: there is nothing to choose from


def test_standardisation_comes_from_the_training_images() -> None:
    targets = label_maps(10)
    bank = trained(noise(10), targets)
    train = targets["depth"][SPLIT.train]
    assert bank.standardisations["depth"].mean == pytest.approx(train.mean().item(), rel=1e-5)
    assert bank.standardisations["depth"].std == pytest.approx(train.std(correction=0).item(), rel=1e-5)


class Snapshots(lightning.Callback):
    """Keeps the validation losses and the weights of every epoch."""

    def __init__(self, activations: Activations, targets: dict[str, Tensor]) -> None:
        self.data = activations, targets
        self.losses: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, ProbeBankModule)
        bank = pl_module.bank
        self.losses.append({name: validation_losses(bank, *self.data, name) for name in bank.properties})
        self.weights.append({name: value.clone() for name, value in bank.state_dict().items()})


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_each_probe_keeps_the_weights_of_its_best_validation_epoch(head: str) -> None:
    activations, targets = noise(10), label_maps(10)
    snapshots = Snapshots(activations, targets)
    trainer = quiet_trainer(max_epochs=25, callbacks=[snapshots], num_sanity_val_steps=0)
    probe_config = ProbeConfig(batch_size=2, head=head, bias=head == "mlp")
    bank = train_bank(activations, targets, SPLIT, ["depth", "shading"], probe_config, trainer=trainer)
    assert len(snapshots.losses) == 25
    chosen = set()
    for name in ("depth", "shading"):
        best = torch.stack([losses[name] for losses in snapshots.losses]).argmin(0)
        for number, layer in enumerate(bank.layers):
            for step, epoch in enumerate(best[number].tolist()):
                for key, values in bank.head_of(name, layer).named_parameters():
                    key = f"heads.{name}.{layer.replace('.', '/')}.{key}"
                    torch.testing.assert_close(values[step], snapshots.weights[epoch][key][step])
                chosen.add(epoch)
    assert len(chosen) > 2  # else this test could not fail


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_an_image_shown_twice_weighs_once_in_the_selection() -> None:
    activations, targets = noise(10), label_maps(10)
    bank = ProbeBank({SHALLOW: 6, DEEP: 5}, activations.steps, PROPERTIES)
    tokens = {name: token_targets(maps, [(8, 8), (4, 4)]) for name, maps in targets.items()}
    collate = Collate(activations.values, tokens)
    once, twice = (ProbeBankModule(bank, images=10) for _ in range(2))
    for module, batches in ((once, [[5, 6], [7]]), (twice, [[5, 6], [7, 5]])):
        loader = DataLoader([collate(rows) for rows in batches], batch_size=None)  # type: ignore[arg-type]
        quiet_trainer().validate(module, loader, verbose=False)
    for name in PROPERTIES:
        torch.testing.assert_close(once.best_loss[name], twice.best_loss[name])
        assert once.best_loss[name].isfinite().all()
    expected = validation_losses(bank, activations, targets, "saliency")
    torch.testing.assert_close(once.best_loss["saliency"], expected)


def test_the_logged_training_loss_is_the_mean_over_all_images_and_probes() -> None:
    activations, targets = noise(10), label_maps(10)
    bank = ProbeBank({SHALLOW: 6, DEEP: 5}, activations.steps, PROPERTIES)
    tokens = {name: token_targets(maps, [(8, 8), (4, 4)]) for name, maps in targets.items()}
    still = ProbeConfig(learning_rates=dict.fromkeys(PROPERTIES, 1e-9))
    module = ProbeBankModule(bank, images=10, probe_config=still)
    batches = [Collate(activations.values, tokens)(rows) for rows in ([5, 6], [7])]  # of unequal size
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    for name in PROPERTIES:
        expected = validation_losses(bank, activations, targets, name).mean()
        torch.testing.assert_close(trainer.callback_metrics[f"training_loss/{name}"], expected, rtol=1e-4, atol=1e-5)


def test_a_probe_that_was_never_validated_keeps_its_last_weights() -> None:
    activations, targets = noise(10), label_maps(10)
    last = trained(activations, targets, validate_every=3)
    trainer = quiet_trainer(max_epochs=3, check_val_every_n_epoch=10, num_sanity_val_steps=0)
    assert equal(last, trained(activations, targets, trainer=trainer))


def test_the_sanity_check_of_a_trainer_selects_nothing() -> None:
    targets = label_maps(10)
    activations = planted(10, targets, steps=4, first_step=0)
    mirrored = targets | {"depth": targets["depth"].clone()}
    mirrored["depth"][SPLIT.validation] *= -1  # so that some probes are at their best before training
    banks = [
        trained(
            activations,
            mirrored,
            properties=["depth"],
            trainer=quiet_trainer(max_epochs=2, num_sanity_val_steps=number),
        )
        for number in (2, 0)
    ]
    assert equal(*banks)


def test_half_precision_storage_changes_little() -> None:
    activations, halves, targets = noise(10), noise(10, dtype=torch.float16), label_maps(10)
    first, second = trained(activations, targets), trained(halves, targets)
    torch.testing.assert_close(first.weight("depth", DEEP), second.weight("depth", DEEP), atol=2e-3, rtol=0)


def test_the_default_trainer_is_silent_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    trained(noise(10), label_maps(10))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
    assert not [warning for warning in recwarn if "workers" in str(warning.message)]


def test_label_maps_that_do_not_fit_are_refused() -> None:
    activations, targets = noise(10), label_maps(10)
    with pytest.raises(UserError, match="no label maps for property 'shading'"):
        trained(activations, {name: targets[name] for name in ("saliency", "depth")})
    with pytest.raises(UserError, match=r"depth.*\[10, height, width\]"):
        trained(activations, targets | {"depth": targets["depth"][:4]})
    targets["depth"][3, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"depth.*'image_3'"):
        trained(activations, targets)


def test_a_learning_rate_replaces_the_papers_of_its_property_alone():
    usual = trained(noise(10), label_maps(10))
    faster = trained(noise(10), label_maps(10), learning_rates={"depth": 0.05})
    for name in PROPERTIES:
        same = all(torch.equal(usual.weight(name, layer), faster.weight(name, layer)) for layer in usual.layers)
        assert same == (name != "depth")


def test_the_recipe_makes_the_head_and_its_penalties() -> None:
    activations, targets, images = noise(10), label_maps(10), torch.rand(10, 3, 16, 16)
    assert trained(activations, targets, head="mlp", bias=True).head == "mlp"
    plain = trained(activations, targets)
    assert not equal(plain, trained(activations, targets, l1=0.1))
    assert not equal(plain, trained(activations, targets, smoothness=1.0, images=images))
    assert equal(plain, trained(activations, targets, images=images))


def test_smoothness_is_the_same_however_few_images_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    activations, targets, images = noise(10), label_maps(10), torch.rand(10, 3, 16, 16)
    whole = trained(activations, targets, smoothness=1.0, images=images)
    monkeypatch.setattr(training, "IMAGES_AT_ONCE", 3)
    assert equal(whole, trained(activations, targets, smoothness=1.0, images=images))


def test_penalties_do_not_choose_the_epoch() -> None:
    activations, targets = noise(10), label_maps(10)
    bank = ProbeBank({SHALLOW: 6, DEEP: 5}, activations.steps, PROPERTIES)
    tokens = {name: token_targets(maps, [(8, 8), (4, 4)]) for name, maps in targets.items()}
    module = ProbeBankModule(bank, images=10, probe_config=ProbeConfig(l1=10, smoothness=10))
    loader = DataLoader([Collate(activations.values, tokens)([5, 6, 7])], batch_size=None)  # type: ignore[arg-type]
    quiet_trainer().validate(module, loader, verbose=False)
    expected = validation_losses(bank, activations, targets, "saliency")
    torch.testing.assert_close(module.best_loss["saliency"], expected)


def test_smoothness_asks_for_images_that_fit() -> None:
    with pytest.raises(UserError, match=r"probe\.smoothness needs the images"):
        trained(noise(10), label_maps(10), smoothness=0.1)
    with pytest.raises(UserError, match=r"expected \[10, channels"):
        trained(noise(10), label_maps(10), smoothness=0.1, images=torch.rand(4, 3, 16, 16))
