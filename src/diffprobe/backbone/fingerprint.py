"""Short names for the exact weights and configuration of a network, and for the rules of a tokenizer."""

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


def fingerprint_of_tokenizer(tokenizer: Any) -> str:
    """SHA-256, in hexadecimal, of all that makes token ids of a text, wherever the tokenizer was loaded from.

    That is its vocabulary, merges and normalisation, and what it cuts and fills texts to.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python
        rules: Any = {"vocabulary": sorted(tokenizer.get_vocab().items()), "merges": _merges(tokenizer)}
    else:
        rules = json.loads(backend.to_str())
        rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}  # of the last call
    described = [
        type(tokenizer).__name__,
        rules,
        tokenizer.model_max_length,
        [tokenizer.padding_side, tokenizer.truncation_side],
        {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _merges(tokenizer: Any) -> list[str]:
    ranks: dict[Any, int] = getattr(tokenizer, "bpe_ranks", {})
    return [str(pair) for pair in sorted(ranks, key=lambda pair: ranks[pair])]


def _config(module: nn.Module) -> dict[str, Any]:
    config: Any = getattr(module, "config", {})
    return dict(config.to_dict() if hasattr(config, "to_dict") else config)


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
