"""A problem on packed tensors: one evaluation of the cell and one reverse pass."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from ..calls import refuse_in_place, told_in_place
from ..checks import CellError, fail
from ..layout import Spec, Tree, leaves, map_tree
from ..problem import Problem
from ..solution import Evaluations


class Pulled(NamedTuple):
    """Of one evaluation and one VJP: parts of f(z, x), l(z, x) (B,), parts of J_z^T mu + l_z and of J_x^T mu + l_x.

    A part is one tensor of the tree, (B, n_i); they are not joined here, because the caller joins more than these.
    """

    image: list[Tensor]
    value: Tensor
    z: list[Tensor]
    x: list[Tensor]


class PackedProblem:
    """Cell and objective as functions of packed z (B, n) and x (B, k); counts its calls.

    differentiable: record every call, for an adjoint that differentiates through the solve.
    """

    def __init__(self, problem: Problem, zspec: Spec, xspec: Spec, batch: int, differentiable: bool) -> None:
        self.problem, self.zspec, self.xspec, self.batch = problem, zspec, xspec, batch
        self.differentiable = differentiable
        self.evaluations = Evaluations()

    def rows(self, problem: Problem, batch: int) -> PackedProblem:
        """The same for ``problem``, of so many of the samples; calls are counted with those so far."""
        part = copy.copy(self)
        part.problem, part.batch = problem, batch
        return part

    def pull(self, z: Tensor, mu: Tensor, x: Tensor, weight: Tensor | None = None) -> Pulled:
        """One evaluation and one VJP at packed (z, mu, x); ``weight`` (B,) multiplies the objective (1 where None)."""
        with torch.enable_grad():
            ztree, xtree = self._leaves(z, x)
            out = self.problem.cell(ztree, xtree)
            image, inputs = leaves(out), [*leaves(ztree), *leaves(xtree)]
            # In full once; later a look at the shapes is enough, and costs nothing.
            if self.evaluations.cell == 0 or [i.shape for i in image] != [i.shape for i in leaves(ztree)]:
                self.zspec.check(out, z, "cell", "z'")
            value = self.problem.value(ztree, xtree, self.batch)
            pairs = [*zip(image, (m.contiguous() for m in leaves(self.zspec.unpack(mu))), strict=True)]
            pairs.append((value, torch.ones_like(value) if weight is None else weight))
            grads = self._vjp(pairs, inputs)
        self.evaluations.cell += 1
        self.evaluations.vjp += 1

        if not self.differentiable:
            image, value = [i.detach() for i in image], value.detach()
        image, grads = ([t.reshape(self.batch, -1) for t in many] for many in (image, grads))
        return Pulled(image, value, grads[: len(image)], grads[len(image) :])

    def reduced(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """l(f(x), x) (B,) and its gradient (B, k) at packed x, for a cell that does not look at z."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            xtree = self.xspec.unpack(leaf)
            out = self.zspec.check(self.problem.cell(xtree, xtree), x, "cell", "G(x)")
            value = self.problem.value(out, xtree, self.batch)
            grads = self._vjp([(value, torch.ones_like(value))], [leaf])
        self.evaluations.cell += 1
        self.evaluations.vjp += 1
        return value.detach(), grads[0]

    @torch.no_grad()
    def ahead(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(z, x) (B, n) and l(z, x) (B,) at packed (z, x), constants; one evaluation of the cell."""
        ztree, xtree = self.zspec.unpack(z.detach()), self.xspec.unpack(x.detach())
        image = self.zspec.check(self.problem.cell(ztree, xtree), z, "cell", "z'")
        self.evaluations.cell += 1
        return self.zspec.pack(image), self.problem.value(ztree, xtree, self.batch)

    def _leaves(self, z: Tensor, x: Tensor) -> tuple[Tree, Tree]:
        """z and x as trees of tensors that a gradient can be taken with respect to."""
        if self.differentiable:
            z, x = (t if t.requires_grad else t.detach().requires_grad_() for t in (z, x))
            return self.zspec.unpack(z), self.xspec.unpack(x)
        # Leaves of their own: a packed leaf would have to gather its gradient from the parts. And in one piece: of a
        # stretch of v every layer that reads it would make a copy.
        ztree, xtree = self.zspec.unpack(z), self.xspec.unpack(x)
        return map_tree(_leaf, ztree), map_tree(_leaf, xtree)

    def _vjp(self, pairs: list[tuple[Tensor, Tensor]], inputs: list[Tensor]) -> list[Tensor]:
        """Of all outputs with their weights at once, with respect to ``inputs``; zero where nothing depends on one."""
        pairs = [(output, weight) for output, weight in pairs if output.requires_grad]
        if not pairs:
            fail("cell and objective", "outputs that depend differentiably on z or x", "constants", error=CellError)
        outputs, weights = zip(*pairs, strict=True)
        try:
            grads = torch.autograd.grad(outputs, inputs, weights, create_graph=self.differentiable, allow_unused=True)
        except RuntimeError as error:
            if told_in_place(error):
                refuse_in_place("cell and objective", error)
            raise
        return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, inputs, strict=True)]

    def slopes(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """l_z and l_x at packed (z, x), constants of the same shapes; the cell is not called."""
        with torch.enable_grad():
            z, x = z.detach().requires_grad_(), x.detach().requires_grad_()
            value = self.problem.value(self.zspec.unpack(z), self.xspec.unpack(x), self.batch)
            if not value.requires_grad:
                return torch.zeros_like(z), torch.zeros_like(x)
            gz, gx = torch.autograd.grad(value.sum(), [z, x], allow_unused=True)
        return torch.zeros_like(z) if gz is None else gz, torch.zeros_like(x) if gx is None else gx


def _leaf(t: Tensor) -> Tensor:
    return t.detach().contiguous().requires_grad_()
