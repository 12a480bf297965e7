"""A step whose batch is divided: among processes, or among parts that one process computes one after the other.

Within :func:`holding`, the functions here speak of one share of the batch; everywhere else the share is the whole, and
they cost nothing. Three things make the sum over the shares the step of the whole batch. Rows are dealt out
(:func:`rows`). What is drawn at random is drawn for the whole batch, and each share takes its own rows of it
(:func:`drawn`), so that a step stays a function of (seed, step) however it is divided. And what a loss has to know of
all samples, the number of those that count for example, is added up (:func:`total`).

The gradient of a step is then the sum of the gradients of the shares, each weighted by its rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from ..checks import fail
from .seeds import derive


class BatchShare:
    """Part number ``index`` of ``count`` of the batch of one step.

    batch: samples in the whole batch, 0 until somebody has asked for the rows. The base knows no others: its totals
    are its own.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count, self.batch = index, count, 0

    @property
    def begin(self) -> int:
        """The first row."""
        return self.index * self.batch // self.count

    @property
    def end(self) -> int:
        """The row after the last."""
        return (self.index + 1) * self.batch // self.count

    @property
    def weight(self) -> float:
        """The part of the batch that it has; 1 for the whole."""
        return (self.end - self.begin) / self.batch if self.batch else 1.0

    def total(self, value: Tensor, guess: Tensor | None) -> Tensor:
        """The sum over all shares of the step."""
        return value

    def later(self, value: Tensor, then: Callable[[Tensor], None]) -> None:
        """Hand the sum over all shares to ``then``, before the step ends."""
        then(value)


_HELD: ContextVar[BatchShare | None] = ContextVar("share", default=None)


@contextlib.contextmanager
def holding(share: BatchShare) -> Iterator[None]:
    """Within, the functions below speak of this share."""
    token = _HELD.set(share)
    try:
        yield
    finally:
        _HELD.reset(token)


def alone() -> bool:
    """Whether this is the whole batch."""
    share = _HELD.get()
    return share is None or share.count == 1


def rows(batch: int) -> slice:
    """Which of ``batch`` samples are to be computed here; all of them outside of a divided step.

    Errors: ArgumentError where there are fewer samples than shares, or where two batches of one step differ in size.
    """
    share = _HELD.get()
    if share is None:
        return slice(0, batch)
    if batch < share.count:
        came = f"{batch}, to be divided into {share.count} parts (ranks times accumulate)"
        fail("batch_size", f"at least {share.count} samples", came, "Raise it, or divide it less.")
    if share.batch not in (0, batch):
        fail("batch", f"one size in a step, {share.batch}", f"another of {batch}")
    share.batch = batch
    return slice(share.begin, share.end)


def drawn(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """``draw(count)``, random and with one row (or several) for each sample that is here.

    In a divided step that is ``draw`` of the whole batch, of which the rows of this share are returned: the others take
    theirs of the very same numbers, and generators end in the same state everywhere.
    """
    share = _HELD.get()
    here = 0 if share is None else share.end - share.begin
    if share is None or not here or count % here:
        return draw(count)  # nothing of the batch
    each = count // here
    return draw(share.batch * each)[share.begin * each : share.end * each]


def total(value: Tensor, guess: Tensor | None = None) -> Tensor:
    """The sum of ``value``, a constant of the loss, over all shares of the step.

    guess: what it will most likely be. A process that computes several shares in turn goes on with it and looks
    afterwards, where it would otherwise have to ask every share twice.
    """
    share = _HELD.get()
    return value if share is None else share.total(value.detach(), guess)


def shared_mean(value: Tensor) -> Tensor:
    """The mean over the whole batch, of which ``value`` is the mean over the rows that are here: a constant."""
    share = _HELD.get()
    return value if share is None else share.total(value.detach() * share.weight, None)


def ratio(above: Tensor, below: Tensor, each: int = 1) -> Tensor:
    """The sum of ``above`` over that of ``below``, a count, both over the whole batch, as this share's part of it: such
    parts, weighted by their rows, add up to that ratio.

    each: what a sample most likely counts, as for ``guess`` in :func:`total`.
    """
    share = _HELD.get()
    if share is None:
        return above / below.clamp_min(1)
    guess = torch.full_like(below, share.batch * each)
    return above / share.total(below.detach(), guess).clamp_min(1) / share.weight


def mean_over(values: Tensor, good: Tensor) -> Tensor:
    """The mean of ``values`` (B,) over the samples of the whole batch that are ``good`` (B,), as :func:`ratio` has it:
    zero where none is.
    """
    return ratio(torch.where(good, values, torch.zeros_like(values)).sum(), good.sum())


def later(value: Tensor, then: Callable[[Tensor], None]) -> None:
    """Hand the sum of ``value`` over all shares to ``then`` before the step ends, once: for running statistics."""
    share = _HELD.get()
    if share is None:
        then(value)
    else:
        share.later(value.detach(), then)


def apart(generator: torch.Generator) -> torch.Generator:
    """A generator of this share's own, for draws whose number depends on the data, so that they cannot be made for the
    whole batch. Such a step is another draw, of equal right, for every way of dividing it.
    """
    share = _HELD.get()
    if share is None or share.count == 1:
        return generator
    seed = derive(generator.initial_seed(), "share", share.index)
    return torch.Generator(generator.device).manual_seed(seed)
