"""What a training keeps of its model besides the last weights: their moving average, and the best of them.

Neither needs more than the steps themselves, so that a resumed training keeps the same, bit for bit: the average is
carried in the checkpoints, and the best is a file of its own, which the steps that are done again would write again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from jiio.checks import fail

from .checkpoint import AVERAGE, Checkpoint
from .config import RunConfig
from .load import ConfigError
from .record import FIGURE, Record
from .task import AbstractTask, overrides


def check_validated(task: AbstractTask, config: RunConfig) -> None:
    """A task that is to be validated can be."""
    if config.validate_every and not overrides(type(task), "validate"):
        came = f"{config.validate_every}, and the task {config.task!r} keeps no images for it"
        fail("validate_every", "0", came, "Leave it away.", ConfigError)


class Keeper:
    """The average and the best of a model in training. start: the checkpoint that the training goes on from."""

    def __init__(
        self, config: RunConfig, task: AbstractTask, model: nn.Module, record: Record, start: Checkpoint | None
    ) -> None:
        self.config, self.task, self.model, self.record = config, task, model, record
        self.average: dict[str, Tensor] = {}
        if config.average > 0.0:
            kept = {} if start is None else start.named(AVERAGE)
            for name, p in model.named_parameters():
                self.average[name] = kept.get(name, p.detach()).detach().to(p, copy=True)
        self.best = record.last_best() if start is not None and config.validate_every else math.inf

    def after(self, done: int) -> dict[str, float]:
        """To be called when ``done`` steps are done. Returns: the figure of validation, where it was due."""
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if name in self.average:  # a short training must not remember its random beginning
                    share = max(1.0 - self.config.average, 1.0 / (1.0 + done))
                    self.average[name].lerp_(p.detach(), share)
        every = self.config.validate_every
        if not every or (done % every and done != self.config.steps):
            return {}

        with self.applied(), torch.no_grad():
            training = self.model.training
            value = float(self.task.validate(self.model.eval()))
            if value < self.best:
                self.best = value
                self.record.keep_best(done, self.model, value)
            self.model.train(training)
        return {FIGURE: value}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model has the averaged weights, where there are any."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters() if name in self.average}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if name in values:
                    p.copy_(values[name])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint carries of it."""
        return {f"{AVERAGE}{name}": t for name, t in self.average.items()}
