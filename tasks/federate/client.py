"""A client: its share of the training examples, and its work in a round."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from jiio.checks import JiioError, fail
from jiio.outputs.seeds import derive
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.step import build_optimiser, training_step
from jiio.tasks.frame.task import AbstractTask

from .plan import Federation
from .split import shared_out
from .weighting import Contribution

Arrays = list[np.ndarray]


class FederationError(JiioError, RuntimeError):
    """Server and clients cannot go on together."""


def names_of(model: nn.Module) -> list[str]:
    """The tensors that travel, in the order in which they do: all weights and buffers of floating-point numbers."""
    return [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]


def taken_from(model: nn.Module) -> Arrays:
    """Those of a model, in single precision, or in double where it has that."""
    state = model.state_dict()
    kinds = {torch.float64: torch.float64}
    return [
        state[name].detach().to("cpu", kinds.get(state[name].dtype, torch.float32)).numpy().copy()
        for name in names_of(model)
    ]


def put_into(model: nn.Module, arrays: Sequence[np.ndarray]) -> None:
    """Copy them into a model, in place.

    Errors: FederationError where they are no weights of it.
    """
    state = model.state_dict()
    check_fit([tuple(state[name].shape) for name in names_of(model)], arrays, "weights")
    with torch.no_grad():
        for name, array in zip(names_of(model), arrays, strict=True):
            state[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def check_fit(shapes: Sequence[tuple[int, ...]], arrays: Sequence[np.ndarray], argument: str) -> None:
    """Raise unless the arrays have these shapes and are finite. Errors: FederationError."""
    came = [tuple(array.shape) for array in arrays]
    if came != list(shapes):
        told = f"{len(came)} of other shapes" if len(came) == len(shapes) else f"{len(came)}"
        fail(argument, f"the {len(shapes)} tensors of the recipe's model", told, error=FederationError)
    if not all(np.isfinite(array).all() for array in arrays):
        fail(argument, "finite numbers", "NaN or infinity", error=FederationError)


@dataclass(frozen=True)
class LocalWork:
    """The weights after the local steps of a round, and what is told of them."""

    arrays: Arrays
    answer: Contribution
    evaluations: float
    seconds: float


class Client:
    """Number ``index`` of the clients. task: of the whole recipe, with all data; the client keeps its share alone."""

    def __init__(self, plan: Federation, config: RunConfig, task: AbstractTask, index: int) -> None:
        mine = plan.config(config, index)
        chosen = shared_out(task.examples(), plan.clients, alpha=plan.alpha, seed=config.seed)[index]
        self.plan, self.index, self.config, self.examples = plan, index, mine, len(chosen)
        self.task = task.part(chosen, mine)

    def work(self, arrays: Sequence[np.ndarray], number: int) -> LocalWork:
        """The local steps of round ``number`` (0, 1, ...) from these weights: a function of both and of the plan.

        The optimiser begins anew: what it has learnt of a client's data does not outlive a round in which the weights
        became everybody's.

        Errors: JiioError where a step has no finite loss, or the weights are of another model.
        """
        begin, local = time.process_time(), self.plan.local_steps
        torch.manual_seed(derive(self.config.seed, "model"))
        model = self.task.model().to(check_device(self.config.device)).train()
        put_into(model, arrays)
        optimiser = build_optimiser(model, self.config.optimiser)

        # The mean loss is told; evaluations are none where nothing is solved.
        losses, evaluations = [], 0.0
        for step in range(number * local, (number + 1) * local):
            figures = training_step(self.config, self.task, model, optimiser, step)
            losses.append(figures["loss"])
            evaluations += figures.get("evaluations", math.nan)
        answer = Contribution(self.index, self.examples, self.plan.budget(self.index), sum(losses) / local)
        return LocalWork(taken_from(model), answer, evaluations / local, time.process_time() - begin)


def everybody(plan: Federation, config: RunConfig, task: AbstractTask) -> list[Client]:
    """All clients in one process, on data that are read once."""
    return [Client(plan, config, task, index) for index in range(plan.clients)]


def told(work: LocalWork) -> dict[str, float]:
    """What travels beside the weights: numbers by name."""
    return dataclasses.asdict(work.answer) | {"evaluations": work.evaluations, "seconds": work.seconds}
