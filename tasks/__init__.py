"""Recipes, data and the command line of jiio; imports jiio and attacks.

>>> import tasks
>>> checkpoint = tasks.train(tasks.TrainConfig(output="runs/first"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.checkpoint import Checkpoint
    from tasks.config import TrainConfig
    from tasks.loop import train

__all__ = ["Checkpoint", "TrainConfig", "train"]

_HOME = {"Checkpoint": "tasks.checkpoint", "TrainConfig": "tasks.config", "train": "tasks.loop"}


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that ``jiio --help`` does not wait for torch."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module 'tasks' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
