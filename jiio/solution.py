"""What a solve returns: Solution, Status, Tolerance, and their words."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from .archive import read_record, write_record
from .checks import (
    ArgumentTypeError,
    CheckpointError,
    ConvergenceError,
    ConvergenceWarning,
    PrecisionWarning,
    check_integer,
    check_number,
    fail,
)
from .layout import Tree, map_tree


class Status(IntEnum):
    """Per-sample outcome, stored as int8; ``words`` is a sentence about it.

    Inside the package tensors are compared with ``int(Status...)``: torch.compile takes a comparison with the member
    for a constant.
    """

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    DIVERGED = 3
    NONFINITE = 4
    STOPPED = 5
    KINK = 6

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Status.RUNNING: "still running",
    Status.CONVERGED: "converged: every block met the tolerance at two successive points",
    Status.MAX_STEPS: "stopped at max_steps before every block met the tolerance",
    Status.DIVERGED: "diverged: the residual kept growing however often the solver went back to its best point",
    Status.STOPPED: "stopped by the callback",
    Status.KINK: "at a kink: no step along the gradient lowers the objective, however short",
    Status.NONFINITE: "the cell, the objective or a derivative returned NaN or infinity",
}


@dataclass(frozen=True)
class Tolerance:
    """A sample has converged when RMS(F(v) - v) <= atol + rtol * RMS(v) in every block.

    ``check_every``: look every so many steps (on a GPU a look synchronises; on a CPU leave it at 1).
    """

    atol: float = 1e-6
    rtol: float = 1e-4
    check_every: int = 1

    def __post_init__(self) -> None:
        check_number("Tolerance.atol", self.atol, 0.0)
        check_number("Tolerance.rtol", self.rtol, 0.0)
        check_integer("Tolerance.check_every", self.check_every, 1)
        if self.atol == 0 and self.rtol == 0:
            fail(
                "Tolerance", "atol or rtol above zero", "both zero", "No finite number of steps reaches an exact zero."
            )


@dataclass
class Evaluations:
    """Calls per batch: what a solve costs, whatever the machine.

    ``cell`` counts calls of the cell, ``vjp`` vector-Jacobian products of it; ``adjoint_vjp`` and ``adjoint_hvp``
    (Hessian-vector products of the Lagrangian) are added when a backward pass runs, and ``adjoint_residual`` then
    says how well the last one solved its linear system: (B,), relative to the right-hand side; None before a
    backward pass of Implicit or KKT.
    """

    cell: int = 0
    vjp: int = 0
    adjoint_vjp: int = 0
    adjoint_hvp: int = 0
    adjoint_residual: Tensor | None = None

    @property
    def total(self) -> int:
        """Cell calls and VJPs of the solve itself."""
        return self.cell + self.vjp


@dataclass(frozen=True)
class Trace:
    """What every step measured; NaN where nothing was measured.

    residual: (T, B, K), in the order of ``Solution.blocks``. value: (T, B), the objective. x, z: lists of T
    trees, kept only on request.
    """

    residual: Tensor
    value: Tensor
    x: list[Tree] = field(default_factory=list)
    z: list[Tree] = field(default_factory=list)


_FORM = "jiio-solution"
_TENSORS = ("z", "x", "multiplier", "value", "status", "steps", "residual", "scaling", "gradient")


@dataclass(frozen=True)
class Solution:
    """The returned point and everything that was measured there.

    z, x, multiplier: trees (multiplier is None for ``equilibrium``). value: (B,), what was minimised, objective
    plus the prior of the prox, at (z, x); NaN for ``equilibrium``. status: (B,) int8 of :class:`Status`. steps:
    (B,) int64. residual: (B, K), RMS of F(v) - v per block in the order of ``blocks``, in the scaled units that
    the tolerance is compared with, measured at the returned point itself. evaluations: what it cost. trace: of every
    step, None where none was asked for. differentiable: the names of the fields that carry gradients. scaling: the
    units of the solve, curvature of the objective in z and squared gain in x, each (B, 1), to be given to a solve that
    goes on from here. gradient: (B, n), of the Lagrangian in x, packed. Both are None for ``equilibrium``.
    """

    z: Tree
    x: Tree
    multiplier: Tree | None
    value: Tensor
    status: Tensor
    steps: Tensor
    residual: Tensor
    blocks: tuple[str, ...]
    evaluations: Evaluations
    trace: Trace | None = None
    differentiable: frozenset[str] = frozenset()
    scaling: tuple[Tensor, Tensor] | None = None  # curvature of the objective in z, squared gain in x, each (B, 1)
    gradient: Tensor | None = None  # (B, n) Lagrangian gradient in x at the returned point, packed

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.status == int(Status.CONVERGED)

    def __repr__(self) -> str:
        return f"Solution({self.summary()})"

    def _mapped(self, change: Callable[[str, Any], Any]) -> Solution:
        """The same record with every tensor changed by ``change(field, tensor)``; the counts stay."""

        def changed(name: str, tree: Any) -> Any:  # None, where there is no objective, is a leaf as well
            return map_tree(lambda t: change(name, t) if isinstance(t, Tensor) else t, tree)

        new = {name: changed(name, getattr(self, name)) for name in _TENSORS}
        if self.trace is not None:
            kept = {e.name: getattr(self.trace, e.name) for e in dataclasses.fields(Trace)}
            new["trace"] = Trace(**{name: changed(f"trace.{name}", value) for name, value in kept.items()})
        return dataclasses.replace(self, **new)

    def to(self, *args: Any, **kwargs: Any) -> Solution:
        """On another device or in another floating-point type, with the arguments of ``Tensor.to``.

        Raises ArgumentTypeError for other ones.
        """
        parse = torch._C._nn._parse_to  # pyright: ignore[reportAttributeAccessIssue]
        try:
            device, dtype, blocking, _ = parse(*args, **kwargs)
        except (RuntimeError, TypeError):
            fail("Solution.to", "a device, a floating-point type or a tensor", [*args, kwargs], error=ArgumentTypeError)
        if device is None and dtype is None:
            fail("Solution.to", "a device or a floating-point type", [*args, kwargs], error=ArgumentTypeError)
        if dtype is not None and not dtype.is_floating_point:
            fail("Solution.to", "a floating-point type", dtype, error=ArgumentTypeError)

        def moved(_: str, t: Tensor) -> Tensor:
            return t.to(device, dtype if t.is_floating_point() else None, blocking)

        return self._mapped(moved)

    def detach(self) -> Solution:
        """Without gradients."""
        return dataclasses.replace(self._mapped(lambda _, t: t.detach()), differentiable=frozenset())

    def rows(self, index: int | slice | Tensor | list[int]) -> Solution:
        """Some samples, the batch first: a number, a slice, a mask (B,) or indices; ``evaluations`` of all.

        Raises IndexError for a sample that is not there, ArgumentTypeError for what is no index.
        """
        batch = self.status.shape[0]
        if not isinstance(index, (int, slice, Tensor, list)):
            fail("index", "a number, a slice, a mask or indices of samples", index, error=ArgumentTypeError)
        if isinstance(index, int):
            if not -batch <= index < batch:
                raise IndexError(f"sample {index} of a batch of {batch}")
            index = slice(index % batch, index % batch + 1)
        across = ("trace.residual", "trace.value")  # (T, B, ...)
        return self._mapped(lambda name, t: t[:, index] if name in across else t[index])

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> Solution:
        return self.rows(index)

    def __len__(self) -> int:
        return self.status.shape[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the graph to ``path`` as safetensors, whole or not at all. Raises CheckpointError."""
        fields = {e.name: getattr(self, e.name) for e in dataclasses.fields(self) if e.name != "differentiable"}
        counts = {e.name: getattr(self.evaluations, e.name) for e in dataclasses.fields(Evaluations)}
        trace = self.trace and {e.name: getattr(self.trace, e.name) for e in dataclasses.fields(Trace)}
        write_record(path, _FORM, fields | {"evaluations": counts, "trace": trace})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solution:
        """What :meth:`save` wrote to ``path``, on the CPU and without gradients. Raises CheckpointError for anything
        else.
        """
        fields = read_record(path, _FORM)
        try:
            counts, trace = Evaluations(**fields.pop("evaluations")), fields.pop("trace")
            return cls(**fields, evaluations=counts, trace=trace and Trace(**trace))
        except (KeyError, TypeError, AttributeError):
            fail("path", "a file written by Solution.save", f"{str(path)!r}: other fields", error=CheckpointError)

    def summary(self) -> str:
        """One line a person can read: how samples ended, the worst residual of each block, and what it cost."""
        counts = [f"{int((self.status == s).sum())} {s.name}" for s in Status if bool((self.status == s).any())]
        worst = ", ".join(f"{n} {r:.1e}" for n, r in zip(self.blocks, self.residual.amax(0).tolist(), strict=True))
        calls = f"{self.evaluations.cell} evaluations, {self.evaluations.vjp} VJPs"
        return f"{', '.join(counts)}; worst residual {worst}; {calls}, {int(self.steps.max())} steps"

    def report(self, on_failure: str, floored: Tensor | None = None) -> Solution:
        """Warn or raise, as ``on_failure`` says, where a sample did not converge; ``floored`` (B,): where it converged
        to the arithmetic alone, which is a warning.
        """
        if on_failure == "ignore":
            return self
        if floored is not None and bool(floored.any()):
            warnings.warn(self._imprecise(int(floored.sum())), PrecisionWarning, stacklevel=4)
        if bool(self.converged.all()):
            return self
        text = self._complaint()
        if on_failure == "raise":
            raise ConvergenceError(text)
        with torch.no_grad():
            warnings.warn(text, ConvergenceWarning, stacklevel=4)
        return self

    def _imprecise(self, count: int) -> str:
        """That the tolerance is below what the arithmetic resolves."""
        worst = float((self.residual[self.converged]).amax())
        return (
            f"{count} of {self.status.numel()} samples converged as far as the arithmetic goes, to residuals of "
            f"{worst:.1e} or less, and not to the tolerance. Loosen the tolerance, or compute in a wider type "
            "(float64, or without autocast or TF32)."
        )

    def _complaint(self) -> str:
        """How many samples ended otherwise, why, and what may be done."""
        failed = sorted({int(s) for s in self.status.tolist()} - {int(Status.CONVERGED)})
        reasons = "; ".join(f"{int((self.status == s).sum())} sample(s) {Status(s).words}" for s in failed)
        count = int((~self.converged).sum())
        return (
            f"{count} of {self.status.numel()} samples did not converge ({reasons}). {self.summary()}. "
            "Raise max_steps, loosen the tolerance, or pass on_failure='ignore' and read Solution.status."
        )
