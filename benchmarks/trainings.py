"""Every network that a benchmark trains: by its task's own training, for so many seconds, or by one plain loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import jiio
from benchmarks.tables import say
from jiio.outputs.seeds import derive
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.loop import build_optimiser, train, training_step
from jiio.tasks.frame.task import AbstractTask

Rate = Callable[[int, float], float]  # step, share of the training that is over -> learning rate


@dataclass(frozen=True)
class Steps:
    """A training of so many steps."""

    count: int

    def clock(self) -> Callable[[int], float]:
        """step -> the share of the training that is over; 1 ends it."""
        return lambda step: step / self.count


@dataclass(frozen=True)
class Seconds:
    """A training of so many seconds of the processor: equal budgets, whatever a step costs."""

    seconds: float

    def clock(self) -> Callable[[int], float]:
        """The share that is over, from this call on."""
        begin = time.process_time()
        return lambda step: (time.process_time() - begin) / self.seconds


def constant(rate: float) -> Rate:
    """The same rate throughout."""
    return lambda step, gone: rate


def half_cosine(rate: float, rise: int = 1) -> Rate:
    """Up to ``rate`` within ``rise`` steps, and down to zero along half a cosine over the whole training."""
    return lambda step, gone: rate * min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * gone))


@dataclass(frozen=True)
class Course:
    """How weights move: Adam with this rate, gradients no longer than ``clip``, and weight decay."""

    rate: Rate
    clip: float = 1.0
    decay: float = 0.0


@dataclass(frozen=True)
class Descent:
    """What a training was: its steps, its last loss, and its seconds of the processor."""

    steps: int
    loss: float
    seconds: float


def descend(
    weights: Iterable[nn.Parameter], loss: Callable[[int], Tensor], course: Course, budget: Steps | Seconds
) -> Descent:
    """Train ``weights`` until the budget is spent; loss: number of the step -> scalar."""
    held = list(weights)
    optimiser = torch.optim.Adam(held, course.rate(0, 0.0), weight_decay=course.decay)
    begin, gone = time.process_time(), budget.clock()
    step, value = 0, torch.tensor(math.nan)

    while (share := gone(step)) < 1.0:
        # The rate follows the budget, so that trainings of unlike steps all end at zero.
        optimiser.param_groups[0]["lr"] = course.rate(step, share)
        optimiser.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(held, course.clip)
        optimiser.step()
        step += 1

    return Descent(step, float(value.detach()), time.process_time() - begin)


def for_seconds(task: AbstractTask, name: str, seconds: float, rate: float, cache: Path) -> tuple[nn.Module, int]:
    """The task's model after so many seconds of training, held; and the number of steps that they were enough for.

    name: of the file in ``cache``; where a run before has left it there, it is read.
    """
    torch.manual_seed(derive(task.config.seed, "model"))
    model = task.model()
    path = cache / f"{name}-{seconds:g}.safetensors"
    if path.exists():
        found = checkpoint.load(path)
        found.restore_model(model)
        return model.eval().requires_grad_(False), found.step

    # Seeded step by step like jiio's own training; how many steps there will be is up to the machine.
    def loss(step: int) -> Tensor:
        torch.manual_seed(derive(task.config.seed, "step", step))
        return task.loss(model, step)[0]

    steps = descend(model.parameters(), loss, Course(half_cosine(rate, rise=25)), Seconds(seconds)).steps
    say(f"{name}: {steps} steps in {seconds:g} s")
    checkpoint.save(path, steps, task.config, model)
    return model.eval().requires_grad_(False), steps


def by_steps(task: AbstractTask) -> tuple[nn.Module, float]:
    """The task's model after its own training, with its optimiser and schedule, and the processor seconds of it.

    Without files, so that the seconds are those of the steps alone.
    """
    torch.manual_seed(derive(task.config.seed, "model"))
    model = task.model().train()
    optimiser = build_optimiser(model, task.config.optimiser)

    begin = time.process_time()
    for step in range(task.config.steps):
        training_step(task.config, task, model, optimiser, step)
    return model.eval(), time.process_time() - begin


def classifier(config: ClassifyConfig, data_root: Path | None) -> jiio.EquilibriumModel:
    """The network of a training in ``config.output``; one that was cut short goes on, one that is done is read."""
    model = Classify.trained(train(config, resume=True, data_root=data_root, report=say)).eval()
    assert isinstance(model, jiio.EquilibriumModel)
    return model
