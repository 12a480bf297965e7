"""Recipes, data and the command line of jiio; imports jiio and jiio.attacks.

>>> from jiio import tasks
>>> checkpoint = tasks.train(tasks.RestoreConfig(output="runs/first"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame.checkpoint import Checkpoint
    from .frame.loop import train
    from .restore.latent import RestoreConfig

__all__ = ["Checkpoint", "RestoreConfig", "train"]

_HOME = {"Checkpoint": "frame.checkpoint", "RestoreConfig": "restore.latent", "train": "frame.loop"}


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that ``jiio --help`` does not wait for torch."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
