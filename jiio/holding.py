"""What a solve holds fixed: the weights of the cell, the modes of its modules, and the mode of gradients."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .checks import CellError, fail


def module_of(cell: Any) -> nn.Module | None:
    """The module behind a cell, if it is one or names one as ``module``."""
    if isinstance(cell, nn.Module):
        return cell
    module = getattr(cell, "module", None)
    return module if isinstance(module, nn.Module) else None


def _check_still(argument: str, part: nn.Module) -> None:
    """Raise where a layer in training mode changes the map between two evaluations."""
    expected = "a map that stays fixed during a solve"
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        remedy = "Use GroupNorm, or call .eval() on it."
        fail(argument, expected, "BatchNorm in training mode", remedy, CellError)
    if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
        remedy = "Draw one mask per solve (jiio.models does), or set p=0."
        fail(argument, expected, f"{type(part).__name__}(p={part.p}) in training mode", remedy, CellError)


class HeldWeight:
    """Stands in for ``forward`` of a parametrised weight while solves hold it: each thread sees the one it computed.

    torch's own ``parametrize.cached()`` is one switch for the whole process: a training in another thread would read
    weights that are out of date, and graphs that are used up.
    """

    def __init__(self, weight: parametrize.ParametrizationList) -> None:
        self.weight = weight
        self.values: dict[int, Tensor] = {}  # thread -> the weight that it holds

    def __call__(self) -> Tensor:
        value = None if torch.compiler.is_compiling() else self.values.get(threading.get_ident())
        return type(self.weight).forward(self.weight) if value is None else value

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        """Of a module copied in the middle of a solve: a weight that nobody holds."""
        weight = memo.get(id(self.weight))
        return HeldWeight(self.weight if weight is None else weight)


_LOCK = threading.Lock()  # over who stands in for whom; never held while anything is computed


def _hold(weight: parametrize.ParametrizationList) -> HeldWeight | None:
    """Hold one parametrised weight for this thread; None where an outer solve does so already."""
    me = threading.get_ident()
    held = weight.__dict__.get("forward")
    if isinstance(held, HeldWeight) and me in held.values:
        return None
    value = weight()
    with _LOCK:
        held = weight.__dict__.get("forward")
        if not isinstance(held, HeldWeight):
            held = HeldWeight(weight)
            weight.__dict__["forward"] = held
        held.values[me] = value
    return held


def _release(held: HeldWeight) -> None:
    with _LOCK:
        held.values.pop(threading.get_ident(), None)
        if not held.values and held.weight.__dict__.get("forward") is held:
            del held.weight.__dict__["forward"]


def held_values(modules: Iterable[nn.Module]) -> list[tuple[HeldWeight, Tensor]]:
    """The parametrised weights that this thread holds, with what they are held at, in a fixed order."""
    me, found = threading.get_ident(), []
    for module in modules:
        for part in module.modules():
            held = part.__dict__.get("forward")
            if isinstance(held, HeldWeight) and me in held.values:
                found.append((held, held.values[me]))
    return found


@contextlib.contextmanager
def held_at(weights: Iterable[HeldWeight], values: Iterable[Tensor]) -> Iterator[None]:
    """Within, this thread holds those weights at other values."""
    me, weights = threading.get_ident(), list(weights)
    before = [held.values[me] for held in weights]
    for held, value in zip(weights, values, strict=True):
        held.values[me] = value
    try:
        yield
    finally:
        for held, value in zip(weights, before, strict=True):
            held.values[me] = value


@contextlib.contextmanager
def held_fixed(cell: Any) -> Iterator[None]:
    """Hold the map fixed for one solve and its taped application.

    Parametrised weights (weight norm, spectral norm) are computed once, under grad mode where it is on, so that every
    evaluation uses the same weights and the taped one still reaches their parameters. Layers that change the map
    between two evaluations are refused. Whatever the cell does or raises, the modes of its modules and the mode of
    gradients are afterwards what they were.
    """
    module = module_of(cell)
    grad = torch.is_grad_enabled()
    modes: list[tuple[nn.Module, bool]] = []
    weights: list[parametrize.ParametrizationList] = []
    for name, part in () if module is None else module.named_modules():
        if part.training:
            _check_still(f"cell.{name}", part)
        modes.append((part, part.training))
        if isinstance(part, parametrize.ParametrizationList):
            weights.append(part)

    with contextlib.ExitStack() as stack:
        for weight in weights:
            if (held := _hold(weight)) is not None:
                stack.callback(_release, held)
        try:
            yield
        finally:
            for part, mode in modes:
                if part.training != mode:
                    part.training = mode
            if torch.is_grad_enabled() != grad:
                torch.set_grad_enabled(grad)
