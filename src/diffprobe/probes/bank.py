"""How the probes of a run are made (`ProbeConfig`), all of them in one module (`ProbeBank`), and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffprobe.errors import UserError
from diffprobe.files import PREFIX, Damaged, read_sealed, replacing, sealed
from diffprobe.properties import Property, Standardisation, as_properties, property_from, property_named
from diffprobe.ranges import Choice, Count, Items, Name, Number

SOLVERS = ("adam", "ridge", "exact")
HEADS = ("linear", "mlp")
Rate = Annotated[float, Number(above=0, high=10)]
Rates = Annotated[Mapping[str, Rate], Items()]  # by property
Strengths = Annotated[Sequence[Annotated[float, Number(1e-12, 1_000_000)]], Items(1)]


@dataclass(frozen=True)
class ProbeConfig:
    """One kind of probe. The defaults are those of Chen, Viégas and Wattenberg (2023, appendix).

    The solver is 'adam' (the papers'), 'ridge' (closed form, squared error) or 'exact' (the loss of 'adam', solved to
    convergence). The head is 'linear', or 'mlp' with half as many hidden units as channels. Raises UserError for an
    unknown solver or head, or a head or penalty that the solver does not know.
    """

    name: Annotated[str, Name()] = "linear"  # its value in the column `probe` of tables
    solver: Annotated[str, Choice(*SOLVERS)] = "adam"
    head: Annotated[str, Choice(*HEADS)] = "linear"  # only 'adam' trains an 'mlp'
    bias: bool = False  # of each layer of the head
    # Of 'adam':
    l1: Annotated[float, Number(0, 1000)] = 0.0  # weight of the sum of absolute weights in the loss
    smoothness: Annotated[float, Number(0, 1000)] = 0.0  # weight of the edge-aware smoothness of the predicted map
    epochs: Count = 30
    batch_size: Count = 4  # in images, of all devices together; also how many 'ridge' adds up at once
    validate_every: Count = 2  # epochs; the weights with the lowest validation loss are kept
    learning_rates: Rates = field(default_factory=dict)  # instead of the papers', for some properties
    # Of 'ridge' and 'exact', in mean eigenvalues of the tokens' second moment; the best on validation images is taken
    strengths: Strengths = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    def __post_init__(self) -> None:
        for key, value, choices in (("solver", self.solver, SOLVERS), ("head", self.head, HEADS)):
            if value not in choices:
                raise UserError(f"probe.{key}={value}: choose one of {', '.join(choices)}")
        if self.l1 < 0 or self.smoothness < 0:
            raise UserError(f"probe.l1={self.l1} probe.smoothness={self.smoothness}: penalties must not be negative")
        if self.solver != "adam" and (self.head != "linear" or self.l1 or self.smoothness):
            raise UserError(
                f"probe.solver={self.solver} knows linear probes without l1 or smoothness; choose probe.solver=adam"
            )
        if self.solver != "adam" and (not self.strengths or min(self.strengths) <= 0):
            raise UserError(f"probe.strengths={list(self.strengths)}: give positive numbers")


Start = Callable[[str, tuple[int, ...], int], Tensor]
"""(name, shape, channels that come in) -> where a parameter starts, [steps, *shape]."""


class Head(nn.Module):
    """The probes of one property on one layer: `weight` [steps, outputs, inputs] and `bias` [steps, outputs] or None.

    The inputs are the channels, or of an mlp half as many hidden units, which `hidden_weight` [steps, hidden, channels]
    and `hidden_bias` [steps, hidden] make, followed by ReLU. A linear head has neither.
    """

    def __init__(self, kind: str, channels: int, outputs: int, bias: bool, start: Start) -> None:
        super().__init__()
        mlp = kind == "mlp"
        inputs = max(1, channels // 2) if mlp else channels
        self.hidden_weight = nn.Parameter(start("hidden_weight", (inputs, channels), channels)) if mlp else None
        self.hidden_bias = nn.Parameter(start("hidden_bias", (inputs,), channels)) if mlp and bias else None
        self.weight = nn.Parameter(start("weight", (outputs, inputs), inputs))
        self.bias = nn.Parameter(start("bias", (outputs,), inputs)) if bias else None

    def forward(self, activation: Tensor) -> Tensor:
        """Activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        if self.hidden_weight is not None:
            activation = _affine(activation, self.hidden_weight, self.hidden_bias).relu()
        return _affine(activation, self.weight, self.bias)

    @property
    def maps(self) -> list[nn.Parameter]:
        """All parameters but the biases."""
        return [self.weight] if self.hidden_weight is None else [self.hidden_weight, self.weight]


def run_heads(heads: Sequence[Head], activation: Tensor) -> Tensor:
    """Outputs of several heads for an activation [steps, batch, channels, h, w], as [steps, batch, outputs, h, w].

    Linear heads are one product.
    """
    if any(head.hidden_weight is not None for head in heads):
        return torch.cat([head(activation) for head in heads], 2)
    weights: list[Tensor] = [head.weight for head in heads]
    biases: list[Tensor] = [head.bias for head in heads if head.bias is not None]
    return _affine(activation, torch.cat(weights, 1), torch.cat(biases, 1) if biases else None)


def _affine(activation: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`weight` [steps, outputs, channels] and `bias` [steps, outputs] on [steps, batch, channels, h, w]."""
    steps, batch, channels, height, width = activation.shape
    tokens = activation.to(weight.dtype).reshape(steps * batch, channels, height * width)
    maps = weight[:, None].expand(-1, batch, -1, -1).flatten(0, 1)
    outputs = torch.bmm(maps, tokens).view(steps, batch, -1, height, width)
    return outputs if bias is None else outputs + bias[:, None, :, None, None]


class ProbeBank(nn.Module):
    """Probes on `channels[layer]` channels for every layer, step and property.

    The probes of one (layer, property) are one head, whose parameters begin with the steps, so all steps run in one
    batched product. A probe starts as `nn.Linear` does, from a seed made of `seed` and its own (property, layer, step):
    it is the same probe whatever else is in the bank.

    Attributes:
        channels: of each layer, in execution order.
        steps: 0-based step numbers.
        standardisations: of the training targets, by property; the identity where none is given.
        thresholds: binary property -> layer -> probability above which a pixel is foreground, one per step; 0.5 (the
            paper's argmax) until `scoring.choose_thresholds` gives others.
        strengths: property -> layer -> strength of the penalty that was chosen, one per step; empty where none is.

    Raises UserError for an unknown property.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        steps: Sequence[int],
        properties: Sequence[str | Property],
        *,
        head: str = "linear",
        bias: bool = False,
        seed: int = 0,
        standardisations: Mapping[str, Standardisation] | None = None,
    ) -> None:
        super().__init__()
        self.channels = dict(channels)
        self.steps = list(steps)
        self.properties = as_properties(properties)
        self.standardisations = {
            name: (standardisations or {}).get(name, Standardisation()) for name in self.properties
        }
        self.thresholds = {
            name: {layer: [0.5] * len(self.steps) for layer in self.channels}
            for name, item in self.properties.items()
            if item.binary
        }
        self.strengths: dict[str, dict[str, list[float]]] = {name: {} for name in self.properties}
        self.head, self.bias = head, bias
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleDict({_module_name(layer): self._new_head(item, layer, seed) for layer in self.channels})
                for name, item in self.properties.items()
            }
        )

    @property
    def layers(self) -> list[str]:
        return list(self.channels)

    def head_of(self, name: str, layer: str) -> Head:
        """The probes of property `name` on `layer`, of all steps."""
        by_layer = self.heads[name]
        assert isinstance(by_layer, nn.ModuleDict)
        return by_layer[_module_name(layer)]  # type: ignore[return-value]

    def linear_head(self, name: str, layer: str) -> Head:
        """As `head_of`. Raises TypeError for probes that are not linear."""
        if self.head != "linear":
            raise TypeError(f"a probe of kind {self.head!r} has no single direction")
        return self.head_of(name, layer)

    def weight(self, name: str, layer: str) -> nn.Parameter:
        """Weights of the linear probes of property `name` on `layer`: [steps, outputs, channels]."""
        return self.linear_head(name, layer).weight

    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """All properties' outputs for an activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        return run_heads([self.head_of(name, layer) for name in self.properties], activation)

    def outputs_of_layers(self, layers: Sequence[str], values: Tensor) -> Tensor:
        """All properties' outputs for layers of one shape: [layers, steps, channels, batch, h, w] -> [layers, steps,
        batch, outputs, h, w]. Linear probes are one product, much faster than `outputs` of one layer after another."""
        if self.head != "linear":
            return torch.stack(
                [self.outputs(layer, own.transpose(1, 2)) for layer, own in zip(layers, values, strict=True)]
            )
        heads = [[self.head_of(name, layer) for name in self.properties] for layer in layers]
        weights = torch.stack([torch.cat([head.weight for head in own], 1) for own in heads]).flatten(0, 1)
        outputs = torch.bmm(weights, values.to(weights.dtype).flatten(0, 1).flatten(2))
        biases: list[list[Tensor]] = [[head.bias for head in own if head.bias is not None] for own in heads]
        if self.bias:
            outputs = outputs + torch.stack([torch.cat(own, 1) for own in biases]).flatten(0, 1)[..., None]
        shape = (len(layers), len(self.steps), -1, *values.shape[3:])
        return outputs.view(shape).transpose(2, 3)

    def separate(self, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs [..., outputs, h, w] of all properties -> {property: [..., its outputs, h, w]}."""
        parts = outputs.split([item.outputs for item in self.properties.values()], dim=-3)
        return dict(zip(self.properties, parts, strict=True))

    def forward(self, layer: str, activation: Tensor) -> dict[str, Tensor]:
        """Activation of `layer` [steps, batch, channels, h, w] -> {property: [steps, batch, outputs, h, w]}."""
        return self.separate(self.outputs(layer, activation))

    def _new_head(self, item: Property, layer: str, seed: int) -> Head:
        def start(parameter: str, shape: tuple[int, ...], incoming: int) -> Tensor:
            """nn.Linear's: uniform within +-1/sqrt(incoming channels), for weights and biases."""
            values = []
            for step in self.steps:
                own_seed = crc32(f"{seed}/{parameter}/{item.name}/{layer}/{step}".encode())
                values.append(torch.rand(shape, generator=torch.Generator().manual_seed(own_seed)))
            return (2 * torch.stack(values) - 1) / sqrt(incoming)

        return Head(self.head, self.channels[layer], item.outputs, self.bias, start)


def _module_name(layer: str) -> str:
    # Names of modules must not hold dots; names of layers never hold slashes.
    return layer.replace(".", "/")


# Of a file's metadata
NEEDED = {"property", "properties", "standardisation", "thresholds", "layers", "steps"}
OPTIONAL = {"definition", "head", "made_of", "strengths"}


def save_bank(bank: ProbeBank, folder: str | Path, provenance: str | None = None) -> list[Path]:
    """Writes `<folder>/<property>.safetensors` for every property of the bank; returns the paths.

    Keys: `<layer>/step_<step>` -> weight [outputs, channels], and `<layer>/step_<step>/bias` -> [outputs] if there is
    one; an mlp has `.../hidden_weight` [hidden, channels] and `.../hidden_bias` [hidden] too, and its weight is
    [outputs, hidden]. Metadata, JSON each: property, its definition, properties (of the bank), head, standardisation
    (in label units), thresholds and strengths (as of `ProbeBank`), layers, steps, `made_of` (the `provenance`, if it is
    given: what determines the probes), and checksums of all this (see `diffprobe.files`).
    """
    return [_save_property(bank, name, Path(folder), provenance) for name in bank.properties]


def load_bank(folder: str | Path, provenance: str | None = None) -> ProbeBank:
    """The bank that `save_bank` wrote to `folder`, with this provenance if one is given.

    Raises:
        UserError: there is none; a file is damaged or of another property or provenance; or files disagree.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UserError(f"no probes in {folder}: it should hold one .safetensors file per property.")
    contents = {path.stem: _read(path) for path in files}
    tensors, metadata = next(iter(contents.values()))
    for path, (_, data) in zip(files, contents.values(), strict=True):
        if data["property"] != path.stem:
            raise UserError(f"{path} holds probes of {data['property']}, not of what its name says")
        if provenance is not None and data.get("made_of") != provenance:
            raise UserError(f"{path} holds probes of another model, or of other images")
        if any(data[key] != metadata[key] for key in ("layers", "steps", "head")):
            raise UserError(f"{path} has other layers, steps or heads than {files[0]}: they come from different runs.")
    layers, steps = metadata["layers"], metadata["steps"]
    items = {name: _property_of(name, data) for name, (_, data) in contents.items()}
    order = metadata["properties"] if set(metadata["properties"]) == set(contents) else list(contents)
    firsts = {layer: _key(layer, steps[0], "weight") for layer in layers}
    bank = ProbeBank(
        {layer: tensors.get(f"{first}/hidden_weight", tensors[first]).shape[1] for layer, first in firsts.items()},
        steps,
        [items[name] for name in order],
        head=metadata["head"],
        bias=any(key.endswith("/bias") for key in tensors),
        standardisations={name: _standardisation(data["standardisation"]) for name, (_, data) in contents.items()},
    )
    for name, (values, data) in contents.items():
        if bank.properties[name].binary:
            bank.thresholds[name] = data["thresholds"]
        bank.strengths[name] = data["strengths"]
        for layer in layers:
            for parameter, target in bank.head_of(name, layer).named_parameters():
                target.data.copy_(torch.stack([values[_key(layer, step, parameter)] for step in steps]))
    return bank


def _property_of(name: str, metadata: Mapping[str, Any]) -> Property:
    """As its file defines it; files from before properties of one's own name known ones."""
    return property_from(metadata["definition"]) if "definition" in metadata else property_named(name)


def _standardisation(values: Mapping[str, Any]) -> Standardisation:
    mean = values["mean"]
    return Standardisation(tuple(mean) if isinstance(mean, list) else mean, values["std"])


def _save_property(bank: ProbeBank, name: str, folder: Path, provenance: str | None) -> Path:
    tensors = {
        _key(layer, step, parameter): values[index].detach().cpu().contiguous().clone()
        for layer in bank.layers
        for parameter, values in bank.head_of(name, layer).named_parameters()
        for index, step in enumerate(bank.steps)
    }
    data = {
        "property": name,
        "definition": bank.properties[name].definition(),
        "head": bank.head,
        "properties": list(bank.properties),
        "standardisation": asdict(bank.standardisations[name]),
        "thresholds": bank.thresholds.get(name, {}),
        "strengths": bank.strengths[name],
        "layers": bank.layers,
        "steps": bank.steps,
        **({} if provenance is None else {"made_of": provenance}),
    }
    path = folder / f"{name}.safetensors"
    with replacing(path) as temporary:
        save_file(tensors, temporary, sealed(tensors, {key: json.dumps(value) for key, value in data.items()}))
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    try:
        tensors, texts = _read_unsealed(path) or read_sealed(path)
        metadata = {key: json.loads(value) for key, value in texts.items()}
    except Damaged as damage:
        raise UserError(f"{path} is damaged: {damage}; make the probes again") from damage
    except Exception as error:
        raise UserError(f"{path} is not a file of probes: {error}") from error
    missing, more = NEEDED - set(metadata), set(metadata) - NEEDED - OPTIONAL
    if missing or more:
        wrong = f"lacks {', '.join(sorted(missing))}" if missing else f"has {min(more)}, which no probes have"
        raise UserError(f"{path} is not a file of probes: its metadata {wrong}.")
    return tensors, {"head": "linear", "strengths": {}} | metadata  # which the first files lack


def _read_unsealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata of a file from before there were checksums; None for one that has some."""
    with safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        if any(key.startswith(PREFIX) for key in texts):
            return None
        return {key: file.get_tensor(key) for key in file.keys()}, texts  # noqa: SIM118 (not a dict)


def _key(layer: str, step: int, parameter: str) -> str:
    probe = f"{layer}/step_{step}"
    return probe if parameter == "weight" else f"{probe}/{parameter}"
