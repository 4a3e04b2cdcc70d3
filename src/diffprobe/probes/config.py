"""How the probes of a run are made: what they are, and what finds their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Items, Keys, Name, Number

SOLVERS = ("adam", "ridge", "exact")
HEADS = ("linear", "mlp")
PROPERTIES = ("saliency", "depth", "shading")
Rate = Annotated[float, Number(above=0, high=10)]
Strengths = Annotated[Sequence[Annotated[float, Number(1e-12, 1_000_000)]], Items(1)]


@dataclass(frozen=True)
class ProbeConfig:
    """One kind of probe. The defaults are those of Chen, Viégas and Wattenberg (2023, appendix).

    Attributes:
        name: what tables call it, in their column `probe`.
        solver: 'adam' (the papers'), 'ridge' (closed form, squared error) or 'exact' (the loss of 'adam', solved to
            convergence).
        head: 'linear', or 'mlp' with half as many hidden units as channels. Only 'adam' trains an 'mlp'.
        bias: of the head's layers (an mlp has two).
        l1: weight of the sum of absolute weights in the loss. 'adam' only.
        smoothness: weight of the edge-aware smoothness of the predicted map in the loss. 'adam' only.
        epochs, batch_size, validate_every, learning_rates: of 'adam'. `batch_size` is in images, of all devices
            together. Each probe keeps the weights of the epoch with the lowest validation loss, looked at every
            `validate_every` epochs; `learning_rates` replaces the papers' for some properties.
        strengths: of 'ridge' and 'exact', as multiples of the mean eigenvalue of the tokens' second moment; the best
            on validation images is taken.

    Raises:
        UserError: an unknown solver or head, or a head or penalty that the solver does not know.
    """

    name: Annotated[str, Name()] = "linear"
    solver: Annotated[str, Choice(*SOLVERS)] = "adam"
    head: Annotated[str, Choice(*HEADS)] = "linear"
    bias: bool = False
    l1: Annotated[float, Number(0, 1000)] = 0.0
    smoothness: Annotated[float, Number(0, 1000)] = 0.0
    epochs: Count = 30
    batch_size: Count = 4
    validate_every: Count = 2
    learning_rates: Annotated[Mapping[str, Rate], Keys(*PROPERTIES, called="property")] = field(default_factory=dict)
    strengths: Strengths = (
        1e-6,
        1e-5,
        1e-4,
        1e-3,
        1e-2,
        1e-1,
        1.0,
    )

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
