"""Recipes, data and the command line of jiio; imports jiio and jiio.attacks.

>>> from jiio import tasks
>>> checkpoint = tasks.train(tasks.RestoreConfig(output="runs/first"))  # doctest: +SKIP
>>> rows = tasks.evaluate(checkpoint)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame.checkpoint import Checkpoint, load
    from .frame.evaluate import evaluate
    from .frame.loop import train
    from .frame.pushing import push
    from .frame.task import AbstractTask
    from .restore.latent import RestoreConfig
    from .restore.load import load_restorer
    from .restore.photos.one import restore_photo
    from .restore.public import Denoiser, Reconstructor, Restorer

__all__ = [
    "AbstractTask",
    "Checkpoint",
    "Denoiser",
    "Reconstructor",
    "RestoreConfig",
    "Restorer",
    "evaluate",
    "load",
    "load_restorer",
    "push",
    "restore_photo",
    "train",
]

_HOME = {
    "AbstractTask": "frame.task",
    "Checkpoint": "frame.checkpoint",
    "Denoiser": "restore.public",
    "Reconstructor": "restore.public",
    "Restorer": "restore.public",
    "RestoreConfig": "restore.latent",
    "evaluate": "frame.evaluate",
    "load": "frame.checkpoint",
    "load_restorer": "restore.load",
    "push": "frame.pushing",
    "restore_photo": "restore.photos.one",
    "train": "frame.loop",
}


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that ``jiio --help`` does not wait for torch."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
