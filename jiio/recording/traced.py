"""A step as a graph of tensor operations: no autograd, no modules, no decisions.

The step is traced once, reverse passes included. What it computes from constants alone, weights cast to a lower
precision for example, is moved out of it and computed once per solve. Tracing fails on what a CUDA graph fails on: a
number that is looked at, a branch that depends on one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ..checks import JiioError
from ..looks import blind
from .base import AbstractRecorder, AbstractReplay, Step, refuse, separate
from .split import parted
from .tracer import traced


class TracedReplay(AbstractReplay):
    """The traced operations, called one after the other."""

    def __init__(
        self, graph: fx.GraphModule, state: list[Tensor], constants: list[Tensor], fused: bool = False
    ) -> None:
        self.state, self.constants = state, constants
        self.before, step = parted(graph, len(state))
        self.step: Callable[..., object] = torch.compile(step, dynamic=False) if fused else step
        self.kept: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def begin(self) -> None:
        self.kept = self.before(*self.constants)

    @torch.no_grad()
    def __call__(self) -> None:
        self.step(*self.state, *self.constants, *self.kept)


@dataclass(frozen=True)
class TracedRecorder(AbstractRecorder):
    """Traces a step and replays its operations, on any device; the same kernels, and so the same numbers.

    fused: the operations are handed to torch.compile, which makes few kernels of many: minutes once, and a compiler of
    C++ on a CPU; the numbers are the same to rounding.
    """

    fused: bool = False

    def record(self, step: Step, state: Sequence[Tensor], constants: Sequence[Tensor]) -> TracedReplay:
        graph = written(step, state, constants)
        return TracedReplay(graph, [_own(t) for t in state], [_own(t) for t in constants], self.fused)


def written(step: Step, state: Sequence[Tensor], constants: Sequence[Tensor]) -> fx.GraphModule:
    """(*state, *constants) -> (), which writes the next state over the state."""
    count = len(state)

    def whole(*tensors: Tensor) -> None:
        buffers = list(tensors[:count])
        found = list(step(buffers, tensors[count:]))
        if len(found) != count or any(new.shape != old.shape for new, old in zip(found, buffers, strict=False)):
            refuse("one whose state changes its shape")
        for buffer, new in zip(buffers, separate(found, buffers), strict=True):
            if new is not buffer:
                buffer.copy_(new)

    # The step runs while it is traced, and writes to what it is given.
    examples = [_own(t) for t in state]
    try:
        with blind(), torch.no_grad():
            return traced(whole, [*examples, *(_own(t) for t in constants)])
    except JiioError:
        raise
    except Exception as error:  # whatever a tracer meets in a function that was not made for it
        refuse(f"one that a tracer cannot follow ({type(error).__name__}: {first_line(error)})", error)


def _own(t: Tensor) -> Tensor:
    """A copy in its own memory, without a graph."""
    return t.detach().clone(memory_format=torch.contiguous_format)


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]
