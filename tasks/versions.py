"""Versions of what the figures of a run may depend on besides its configuration."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any


def package_version(name: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, Any]:
    """What a checkpoint remembers of the machine that wrote it; the number of threads changes how sums are ordered."""
    import torch

    return {
        "jiio": package_version("jiio"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
