"""Networks that are looked at and never trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class FrozenNetworks(nn.ModuleDict):
    """Networks by name that move and are placed together, and that nothing trains or saves.

    As a part of any module they stay in eval mode whatever `train` says, and its `state_dict`, and with it every
    checkpoint, leaves them out. Gradients are off.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__(networks)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenNetworks:
        """Stays in eval mode: `Trainer.fit` calls this for all parts of what it trains."""
        return super().train(False)

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Adds nothing to `destination`, the dict of the module around."""
        return {} if destination is None else destination
