"""The gradient of one step, whose batch is divided among the ranks, and by each into parts that are computed in turn.

Every process has all weights. A share of the batch gives a gradient, weighted by its rows; the sum over shares and
ranks is the gradient of the whole batch, on every rank to the same bit, so that all of them take the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jiio.checks import fail
from jiio.outputs.seeds import derive
from jiio.outputs.shares import BatchShare, holding

from .load import ConfigError
from .ranks import Ranks
from .task import AbstractTask


class _UnknownTotal(Exception):
    """A share asked for a total before the others were heard."""


class _OneOfRanks(BatchShare):
    """The only share of a process: the others compute theirs at the same moment, and answer at once."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks.index, ranks.count)
        self.ranks = ranks

    def total(self, value: Tensor, guess: Tensor | None) -> Tensor:
        return self.ranks.sum(value)

    def later(self, value: Tensor, then: Callable[[Tensor], None]) -> None:
        then(self.ranks.sum(value))


@dataclass
class _Round:
    """What the shares of one process say in one round, question by question.

    known: the totals of the first questions, from rounds before. heard: the sums over the shares of this process.
    used: what the shares went on with. after: sums that nobody waits for, and who wants them.
    """

    known: list[Tensor] = field(default_factory=list)
    heard: list[Tensor] = field(default_factory=list)
    used: list[Tensor | None] = field(default_factory=list)
    after: list[tuple[Tensor, Callable[[Tensor], None]]] = field(default_factory=list)

    def told(self, ranks: Ranks) -> list[Tensor] | None:
        """The totals up to the first one that a share did not know; None where all were right."""
        totals = [ranks.sum(value) for value in self.heard]
        for i, (total, used) in enumerate(zip(totals, self.used, strict=True)):
            if used is None or not torch.equal(total, used):
                return totals[: i + 1]
        return None


class _OneInTurn(BatchShare):
    """One of several shares of a process: a total is known from the round before, or guessed and looked at later."""

    def __init__(self, index: int, count: int, round: _Round) -> None:
        super().__init__(index, count)
        self.round, self.asked, self.handed = round, 0, 0

    def total(self, value: Tensor, guess: Tensor | None) -> Tensor:
        i, round = self.asked, self.round
        self.asked += 1
        used = round.known[i] if i < len(round.known) else guess
        if i == len(round.heard):
            round.heard.append(torch.zeros_like(value))
            round.used.append(used)
        round.heard[i] = round.heard[i] + value
        if used is None:
            raise _UnknownTotal
        return used

    def later(self, value: Tensor, then: Callable[[Tensor], None]) -> None:
        i, after = self.handed, self.round.after
        self.handed += 1
        if i == len(after):
            after.append((torch.zeros_like(value), then))
        after[i] = (after[i][0] + value, then)


@dataclass(frozen=True)
class Parts:
    """How the batch of every step of a training is divided: among ``ranks``, and there into ``each`` parts in turn."""

    task: AbstractTask
    model: nn.Module
    seed: int
    ranks: Ranks
    each: int

    def gradient(self, step: int) -> tuple[float, dict[str, float]]:
        """Leave the gradient of the whole batch in the parameters. Returns: the loss and the means of the figures.

        Figures that are functions are called here, after the backward pass.
        """
        # Again where a guess was wrong, or where a total had to be known first; as a rule once.
        round = _Round()
        while True:
            loss, figures = self._round(step, round)
            totals = round.told(self.ranks)
            if totals is None:
                break
            round = _Round(known=totals)

        # What nobody waited for, and then everything else that the ranks have to add up.
        for value, then in round.after:
            then(self.ranks.sum(value))
        if self.ranks.count > 1:
            add_gradients(self.model, self.ranks)
            names = sorted(figures)
            sums = torch.tensor([loss, *(figures[name] for name in names)], dtype=torch.float64)
            loss, *means = self.ranks.sum(sums).tolist()
            figures = {name: means[names.index(name)] for name in figures}
        return loss, figures

    def _round(self, step: int, round: _Round) -> tuple[float, dict[str, float]]:
        """All shares of this process once; the gradient so far in the parameters, and the weighted figures."""
        for p in self.model.parameters():
            p.grad = None
        loss, figures = 0.0, dict[str, float]()
        for part in range(self.each):
            share = self._share(part, round)
            try:
                value, told = self._part(share, step)
            except _UnknownTotal:
                continue
            loss += value
            for name, figure in told.items():
                figures[name] = figures.get(name, 0.0) + figure
        return loss, figures

    def _share(self, part: int, round: _Round) -> BatchShare:
        if self.each == 1:
            return _OneOfRanks(self.ranks)
        return _OneInTurn(self.ranks.index * self.each + part, self.ranks.count * self.each, round)

    def _part(self, share: BatchShare, step: int) -> tuple[float, dict[str, float]]:
        """One share: its gradient is added to those before, its loss and figures weighted by its rows."""
        torch.manual_seed(derive(self.seed, "step", step))
        with holding(share), self.task.lowered(self.model):
            loss, figures = self.task.loss(self.model, step)
        self._check_divided(share)
        if share.weight != 1.0:
            loss = loss * share.weight
        value = float(loss.detach())
        if math.isfinite(value):  # else the step is given up, by all ranks alike
            loss.backward()
        told = {name: float(figure() if callable(figure) else figure) for name, figure in figures.items()}
        return value, {name: figure * share.weight for name, figure in told.items()}

    def _check_divided(self, share: BatchShare) -> None:
        """A task that takes the whole batch on every rank would take the step of one process, and no sooner."""
        if share.count > 1 and not share.batch:
            came = f"{type(self.task).__name__}, which takes the whole batch"
            remedy = "Let its loss take rows(batch_size) of jiio.outputs.shares, or train it by one process."
            fail("task", f"one whose batch can be divided into {share.count} parts", came, remedy, ConfigError)


def add_gradients(model: nn.Module, ranks: Ranks) -> None:
    """Sum the gradients over the ranks, in place, in one message. What has none on any rank keeps none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return
    kind = parameters[0].dtype
    for p in parameters[1:]:
        kind = torch.promote_types(kind, p.dtype)
    has = torch.tensor([p.grad is not None for p in parameters]).to(parameters[0].device, kind)
    flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().to(kind) for p in parameters]

    # Whether a parameter has a gradient anywhere travels along: an optimiser passes over those that have none.
    has, *summed = ranks.sum(torch.cat([has, *flat])).split([len(parameters), *(p.numel() for p in parameters)])
    for p, somewhere, gradient in zip(parameters, has.tolist(), summed, strict=True):
        p.grad = gradient.view_as(p).to(p.dtype) if somewhere else None


def check_divisible(model: nn.Module, shares: int) -> None:
    """Nothing in the network may look at its whole batch where that is divided.

    Errors: ConfigError.
    """
    if shares == 1:
        return
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training:
            came = f"{type(part).__name__} ({name}), whose statistics would be those of a part"
            remedy = "Use GroupNorm or LayerNorm, or train by one process without accumulate."
            fail(
                "model",
                f"layers that treat samples one by one, for a batch in {shares} parts",
                came,
                remedy,
                ConfigError,
            )
