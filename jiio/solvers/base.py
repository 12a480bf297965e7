"""The interface of a fixed-point solver, and the history buffer that the accelerated ones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checks import GradientError, check_number, fail
from ..layout import map_tree
from .inverse import Inverse

Damping = float | Mapping[str, float]


def damping_of(damping: Damping, block: str) -> float:
    """The damping of one block (1 where none is given)."""
    return damping.get(block, 1.0) if isinstance(damping, Mapping) else damping


def check_damping(argument: str, damping: Damping) -> None:
    """A number in (0, 1], or a mapping from block names to such numbers."""
    if isinstance(damping, Mapping):
        for block, value in damping.items():
            if block not in ("z", "mu", "x"):
                fail(argument, "the blocks 'z', 'mu', 'x'", block)
            check_number(f"{argument}['{block}']", value, 0.0, 1.0, open_low=True)
    else:
        check_number(argument, damping, 0.0, 1.0, open_low=True)


@dataclass(frozen=True)
class AbstractSolver(ABC):
    """A frozen record of settings; what changes during a solve lives in the state that ``step`` is given and returns.

    damping: how far the map itself moves each block, a number in (0, 1] or a mapping such as
    ``{"z": 0.8, "mu": 0.6}`` (the paper's).
    """

    damping: Damping = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_damping(f"{type(self).__name__}.damping", self.damping)

    @abstractmethod
    def init(self, v: Tensor) -> Any:
        """State before the first step; v: (B, D)."""

    @abstractmethod
    def step(self, v: Tensor, fv: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next point (B, D), sample by sample, and the new state. v: (B, D), this point. fv: its image. state: from
        :meth:`init` or the step before.
        """

    def on(self, blocks: Mapping[str, slice]) -> AbstractSolver:
        """The solver of a vector that has these blocks; who treats all numbers alike is it itself."""
        return self

    def bare(self, state: Any) -> Any:
        """A state without the tensors that carry nothing from one step to the next."""
        return state

    def renewed(self, state: Any, v: Tensor) -> Any:
        """As :meth:`init` at v (B, D), in the tensors of a ``state`` that is over: a history need not be made again."""
        return map_tree(lambda old, new: old.copy_(new) if isinstance(old, Tensor) else new, state, self.init(v))

    def restart(self, state: Any, mask: Tensor) -> Any:
        """The state without the history of the samples in ``mask`` (B,)."""
        return state

    def rows(self, state: Any, index: Tensor) -> Any:
        """The state of the samples ``index`` (k,), ascending, alone; NotImplemented where all have to stay."""
        return NotImplemented

    def inverse(self, state: Any) -> Inverse:
        """What a state has learnt of the inverse of I - J, in tensors of its own; who learns nothing raises."""
        remedy = "Solve by Broyden() or Anderson(), or take the gradient by Implicit()."
        fail("solver", "one that estimates the inverse Jacobian", f"{type(self).__name__}()", remedy, GradientError)


def kept(buffer: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` (k,), ascending, of a buffer (B, ...): moved to its front while no graph is recorded, so that
    no second buffer is ever there.
    """
    if torch.is_grad_enabled():
        return buffer.index_select(0, index)
    for place, row in enumerate(index.tolist()):
        if place != row:
            buffer[place].copy_(buffer[row])
    return buffer[: len(index)]


def read(buffer: Tensor, slot: int | Tensor) -> Tensor:
    """buffer[:, slot], for a number or a tensor ()."""
    return buffer.index_select(1, slot.reshape(1))[:, 0] if isinstance(slot, Tensor) else buffer[:, slot]


def write(buffer: Tensor, slot: int | Tensor, column: Tensor, dim: int = 1) -> Tensor:
    """buffer[:, slot] = column; in place while no graph is recorded, else as a new tensor.

    slot: a number, or a tensor () where the same launch serves every step.
    """
    if not torch.is_grad_enabled():
        if isinstance(slot, Tensor):
            return buffer.index_copy_(dim, slot.reshape(1), column.unsqueeze(dim).to(buffer.dtype))
        buffer.select(dim, slot).copy_(column)
        return buffer
    index = torch.arange(buffer.shape[dim], device=buffer.device) == slot
    shape = [1] * buffer.dim()
    shape[dim] = -1
    return torch.where(index.view(shape), column.unsqueeze(dim), buffer)
