"""What a training leaves: log lines, checkpoints, the best weights, the last ones, pictures; all of it by one rank."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from jiio.checks import CheckpointError

from . import checkpoint as files
from .checkpoint import Checkpoint
from .choices import paths_of
from .config import RunConfig
from .files import InputError
from .logs import AbstractLogger
from .place import BEST, WEIGHTS, Place
from .progress import watched
from .task import AbstractTask

FIGURE = "validation"  # its name in the log, and of the tensor in the file of the best weights


class Record:
    """The writer: in a folder that is held and clear. done: steps before this run."""

    def __init__(
        self,
        config: RunConfig,
        place: Place,
        loggers: Sequence[AbstractLogger],
        done: int,
        handed: str | None,
        report: Callable[[str], None],
    ) -> None:
        self.config, self.place, self.loggers, self.report = config, place, loggers, report
        self.folder, self.done, self.handed = place.folder, done, handed

    def clean(self, task: AbstractTask) -> None:
        """Remove what a killed run was about to write."""
        self.place.clean(task.PICTURES)

    def __enter__(self) -> Record:
        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in self.loggers:
            logger.start(self.folder, self.done)
        self.watch = watched(self.config.task, self.config.steps, self.done, self.report)
        return self

    def __exit__(self, *exception: object) -> None:
        self.watch.close()
        for logger in self.loggers:
            logger.close()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """The figures of one step."""
        for logger in self.loggers:
            logger.log(step, figures)
        self.watch.step(figures)

    def save(
        self, done: int, model: nn.Module, optimiser: torch.optim.Optimizer, extra: dict[str, Tensor]
    ) -> Checkpoint:
        """A checkpoint after ``done`` steps. The log reaches the disk first: no checkpoint without its lines."""
        for logger in self.loggers:
            logger.flush()
        path = files.name_of(self.folder, done)
        saved = files.save(path, done, self.config, model, optimiser, handed=self.handed, extra=extra)
        files.prune(self.folder, self.config.keep, saved.path)
        return saved

    def last_best(self) -> float:
        """The figure of the best weights so far; infinite where there are none that can be read."""
        with contextlib.suppress(CheckpointError, InputError):
            kept = files.load(self.folder / BEST, allow=paths_of(self.config))
            return float(kept.tensors.get(FIGURE, torch.tensor(math.inf)))
        return math.inf

    def keep_best(self, done: int, model: nn.Module, value: float) -> None:
        """The weights after ``done`` steps are the best so far."""
        extra = {FIGURE: torch.tensor(value, dtype=torch.float64)}
        files.save(self.folder / BEST, done, self.config, model, handed=self.handed, extra=extra)

    def finish(self, model: nn.Module) -> None:
        """The weights of a finished training."""
        files.save(self.folder / WEIGHTS, self.config.steps, self.config, model, handed=self.handed)

    def draw(self, task: AbstractTask, model: nn.Module) -> None:
        """The pictures of the task."""
        for name, picture in task.pictures(model.eval()).items():
            self.place.write(name, picture)


class Witness(Record):
    """Another rank: it sees the same training, leaves nothing, and knows the same checkpoints."""

    def __init__(self, config: RunConfig, place: Place, done: int, handed: str | None) -> None:
        super().__init__(config, place, (), done, handed, lambda line: None)

    def clean(self, task: AbstractTask) -> None:
        pass

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def log(self, step: int, figures: dict[str, float]) -> None:
        pass

    def save(
        self, done: int, model: nn.Module, optimiser: torch.optim.Optimizer, extra: dict[str, Tensor]
    ) -> Checkpoint:
        path = files.name_of(self.folder, done)
        return files.made(path, done, self.config, model, optimiser, handed=self.handed, extra=extra)

    def last_best(self) -> float:
        return math.inf

    def keep_best(self, done: int, model: nn.Module, value: float) -> None:
        pass

    def finish(self, model: nn.Module) -> None:
        pass

    def draw(self, task: AbstractTask, model: nn.Module) -> None:
        pass
