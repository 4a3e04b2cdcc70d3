"""A short name for the exact weights and configuration of a network."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

# What transformers adds to a configuration of its own accord; the weights say their dtype themselves.
_ASIDE = ("transformers_version", "dtype", "torch_dtype")


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a network's class, configuration and weights: names, shapes, dtypes, all bytes.

    The same on every device and in every memory format. The configuration is `module.config` where there is one,
    without what says where the weights came from. Tensors are hashed side by side in threads: 3.4 GB of weights take
    about 2 s of one core that has SHA instructions.
    """
    config = {key: value for key, value in _config(module).items() if not key.startswith("_") and key not in _ASIDE}
    tensors = sorted(module.state_dict().items())
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        digests = pool.map(_digest, (tensor for _, tensor in tensors))
        weights = [
            (name, list(tensor.shape), str(tensor.dtype), digest)
            for (name, tensor), digest in zip(tensors, digests, strict=True)
        ]
    described = [type(module).__name__, config, weights]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _config(module: nn.Module) -> dict[str, Any]:
    config: Any = getattr(module, "config", {})
    return dict(config.to_dict() if hasattr(config, "to_dict") else config)


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
