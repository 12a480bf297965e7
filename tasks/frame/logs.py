"""Where a training writes its figures: one JSON line per step, and whatever loggers the configuration names.

A logger is an object with ``start(folder, step)``, ``log(step, figures)`` and ``flush()``; ``close()`` ends it.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from jiio.checks import JiioError
from jiio.outputs.atomic import write_whole

from .place import LOG


class AbstractLogger(ABC):
    """What the training loop asks of a logger."""

    @abstractmethod
    def start(self, folder: Path, step: int) -> None:
        """Open. Steps before ``step`` are done; what was logged at or after it belongs to a run that was cut off."""

    @abstractmethod
    def log(self, step: int, figures: dict[str, float]) -> None:
        """Take the figures of one step."""

    @abstractmethod
    def flush(self) -> None:
        """Bring everything to the disk; called before each checkpoint."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""


class JsonLinesLogger(AbstractLogger):
    """``log.jsonl``: one line per step, each step once, however often the run was killed and resumed."""

    def start(self, folder: Path, step: int) -> None:
        path = folder / LOG
        kept = []
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                try:
                    if json.loads(line)["step"] < step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    continue  # a line torn by a kill; its step is repeated
        write_whole(path, b"".join(line + b"\n" for line in kept))
        self.file = path.open("ab")

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **figures}).encode() + b"\n")
        self.file.flush()  # to the system: survives a killed process

    def flush(self) -> None:
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


class TensorboardLogger(AbstractLogger):
    """Event files for TensorBoard in ``<output>/tensorboard``; needs the extra ``log``."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise JiioError(f"loggers: Tensorboard needs the extra 'log' ({error}). pip install 'jiio[log]'") from error
        self.writer_class: Any = SummaryWriter

    def start(self, folder: Path, step: int) -> None:
        # purge_step tells TensorBoard to hide what a cut-off run had logged beyond its last checkpoint.
        self.writer = self.writer_class(str(folder / "tensorboard"), purge_step=step)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
