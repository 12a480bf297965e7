"""Where a report comes from: enough to make the very same one again, or to see why it cannot be."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import ArgumentTypeError, fail

KEYS = ("model", "data", "suite", "command")  # what only the caller can know; a suite has its own name otherwise


def now() -> str:
    """The moment, in universal time."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def check_about(about: Any) -> dict[str, str]:
    """The caller's words about model, data and command."""
    if not isinstance(about, Mapping) or not all(isinstance(v, str) for v in about.values()) or set(about) - {*KEYS}:
        fail("about", f"words under {', '.join(KEYS)}", about, error=ArgumentTypeError)
    return dict(about)


def versions() -> dict[str, str]:
    """Of the software that decides the numbers."""
    return {"jiio": jiio.__version__, "torch": torch.__version__, "python": platform.python_version()}


def in_words(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The same, line by line, as people read it."""
    told = {name: str(value) for name, value in provenance.items() if name != "versions"}
    software = ", ".join(f"{name} {number}" for name, number in provenance.get("versions", {}).items())
    return told | ({"software": software} if software else {})


@dataclass
class Digest:
    """A hash of all images and labels in their order, however they were cut into batches."""

    x: Any = field(default_factory=hashlib.sha256)
    y: Any = field(default_factory=hashlib.sha256)

    def add(self, x: Tensor, y: Tensor) -> None:
        """The next batch, x (B, ...), y (B,)."""
        for digest, part in ((self.x, x), (self.y, y)):
            flat = part.detach().cpu().contiguous()
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)

    def __str__(self) -> str:
        return hashlib.sha256(self.x.digest() + self.y.digest()).hexdigest()[:16]
