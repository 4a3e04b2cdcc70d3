"""The certificate of a model: what was checked once, kept in the working directory, and copied into run folders."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from diffprobe.backbone.load import Backbone
from diffprobe.files import replacing

FOLDER, COPY = Path("certificates"), "certificate.json"  # where they are kept, and their name in a run folder


@dataclass(frozen=True)
class Check:
    """One line of the certificate; `passed` is None where there is nothing to compare with.

    `found` is what was measured. `advice` says what to do, or why nothing was compared.
    """

    what: str
    passed: bool | None
    found: str
    advice: str = ""


def certificate_path(backbone: Backbone) -> Path:
    """Where the certificate of a model is kept: by name, weights, settings, precision and kind of device."""
    described = [backbone.fingerprints, str(backbone.dtype), backbone.device.type, backbone.autocast]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()
    name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in backbone.name)
    return FOLDER / f"{name}-{digest[:12]}.json"


def write_certificate(backbone: Backbone, path: str, checks: Sequence[Check]) -> Path:
    """Writes the checks with what they are of, the whole file or nothing."""
    packages = ("torch", "diffusers", "transformers", "safetensors")
    record = {
        "model": path,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": _device(backbone),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "passed": all(check.passed is not False for check in checks),
        "checks": [asdict(check) for check in checks],
        "fingerprints": backbone.fingerprints,
    }
    target = certificate_path(backbone)
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    return target


def copy_certificate(backbone: Backbone, folder: Path) -> None:
    """Copies the model's certificate, if it has one, into a run folder."""
    if not FOLDER.is_dir():
        return
    certificate = certificate_path(backbone)
    if certificate.is_file():
        with replacing(folder / COPY) as temporary:
            shutil.copyfile(certificate, temporary)


def _device(backbone: Backbone) -> str:
    return torch.cuda.get_device_name() if backbone.device.type == "cuda" else backbone.device.type
