"""How a solve calls a cell and an objective: held to what they promised, and in the arithmetic around the solve.

The solver keeps what it hands out and what it gets back. A function that writes to either in place changes points that
are already judged, and the residual of such a map is zero anywhere; so every call looks at the tensors' version
counters, and the first two at their numbers as well (``.data``, NumPy and CUDA graphs count nothing).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad as forward

from .arithmetic import Arithmetic
from .checks import CellError, JiioError, UnsupportedError, fail
from .layout import Tree, conformed, leaves, map_tree
from .persample import rows_of
from .problem import Cell, Problem

LOOKS = 2  # calls after which the version counters alone are looked at


class Guarded:
    """A cell or an objective (z, x) -> tree; raises CellError where it writes to what is not its own."""

    def __init__(self, name: str, function: Callable[[Any, Any], Any], arithmetic: Arithmetic) -> None:
        self.name, self.function, self.arithmetic = name, function, arithmetic
        self.looks = LOOKS
        self.last: list[Tensor] = []  # what the last call gave

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.function, name)

    def rows(self, index: Tensor) -> Guarded | None:
        """The same for the samples ``index`` (k,) alone; None where the function does not offer that."""
        part = rows_of(self.function, index)
        if part is None:
            return None
        found = copy.copy(self)
        found.function, found.last = part, []
        return found

    def __call__(self, z: Tree, x: Tree) -> Tree:
        given, last = [*leaves(z), *leaves(x)], self.last
        kept = [*given, *last]
        before = [_version(t) for t in kept]
        copies = [t.detach().clone() for t in kept] if self.looks else []

        try:
            out = self._called(z, x)
        except RuntimeError as error:
            if not isinstance(error, JiioError) and told_in_place(error):
                refuse_in_place(self.name, error)
            raise

        self._look(given, kept, before, copies)
        if copies:
            refuse_tangents(f"a {self.name} that carries them", out)
        self.last = [t.detach() for t in leaves(out) if isinstance(t, Tensor)]
        return out

    def _called(self, z: Tree, x: Tree) -> Tree:
        """One call, in the arithmetic around the solve; the result has the type of the state."""
        if self.arithmetic.low is None:
            return self.function(z, x)
        low, wanted = self.arithmetic.low, leaves(z)[0].dtype
        with self.arithmetic.low_again():
            out = self.function(z, x)
        return map_tree(lambda t: t.to(wanted) if isinstance(t, Tensor) and t.dtype == low else t, out)

    def _look(self, given: list[Tensor], kept: list[Tensor], before: list[int], copies: list[Tensor]) -> None:
        """Raise where a tensor is no longer what it was before the call."""
        if not self.looks and [_version(t) for t in kept] == before:
            return
        changed = [_version(t) != old for t, old in zip(kept, before, strict=True)]
        if self.looks:
            self.looks -= 1
            changed = [c or not _same(t, old) for c, t, old in zip(changed, kept, copies, strict=True)]
        if any(changed[: len(given)]):
            refuse_in_place(self.name, came="one that writes to them in place")
        if any(changed):
            refuse_in_place(
                self.name, came="one that works in place: it wrote to the tensor that it had returned before"
            )


class GuardedCell(Guarded):
    """A guarded cell, whose result has the tree of z, whatever the order of its keys."""

    def __init__(self, cell: Cell, arithmetic: Arithmetic) -> None:
        super().__init__("cell", cell, arithmetic)

    def __call__(self, z: Tree, x: Tree) -> Tree:
        out = super().__call__(z, x)
        return out if isinstance(out, Tensor) else conformed(out, z)


def refined(*parts: Any) -> None:
    """Let guarded cells and objectives compute in the precision of their weights from now on, autocast or not."""
    for part in parts:
        part.arithmetic = part.arithmetic.exact()


def guarded(problem: Problem, arithmetic: Arithmetic) -> Problem:
    """The same problem with its cell and its objective guarded."""
    objective = Guarded("objective", problem.objective, arithmetic)
    return Problem(GuardedCell(problem.cell, arithmetic), objective, problem.prox)


def _version(t: Tensor) -> int:
    return 0 if t.is_inference() else t._version


def _same(t: Tensor, old: Tensor) -> bool:
    return bool(((t == old) | (old != old)).all())


def refuse_in_place(
    who: str, cause: BaseException | None = None, came: str = "one that changes in place what is still needed"
) -> NoReturn:
    """Raise CellError with the sentence about work in place."""
    remedy = "Return a new tensor: z + d for z += d, no inplace=True on z or x, .clone() of a buffer."
    try:
        fail(who, "a function that leaves z, x and its earlier results as they are", came, remedy, CellError)
    except CellError as error:
        raise error from cause


def told_in_place(error: RuntimeError) -> bool:
    """Whether an error of torch is about work in place."""
    words = str(error)
    return "in-place operation" in words or "inplace operation" in words or "Inplace update" in words


def check_transforms(owner: str) -> None:
    """Raise inside ``torch.func`` transforms: a solve looks at its numbers, and takes gradients of its own."""
    stack = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue]
    if stack is None:
        return
    remedy = (
        "Differentiate with torch.autograd (jiio's adjoints define the gradient), solve a batch in one call instead of "
        "by vmap, and use torch.autograd.forward_ad for forward mode."
    )
    fail(
        owner,
        "a call outside torch.func transforms",
        "one inside vmap, grad, jvp or the like",
        remedy,
        UnsupportedError,
    )


def refuse_tangents(came: str, tree: Tree) -> None:
    """Raise where a tensor carries a tangent of forward-mode differentiation, which a joint solve would lose."""
    if forward._current_level < 0:
        return
    if any(isinstance(t, Tensor) and forward.unpack_dual(t).tangent is not None for t in leaves(tree)):
        remedy = "Take them of jiio.equilibrium, or use reverse mode, which every adjoint defines."
        fail("solve", "no forward-mode tangents", came, remedy, UnsupportedError)
