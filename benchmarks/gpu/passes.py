"""Whole passes on a device: forward and backward beside torchdeq at equal true residual, and under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import jiio
from benchmarks.engine.overhead import Case
from benchmarks.gpu.cases import case
from benchmarks.gpu.stages import Setting, judged
from benchmarks.tables import Row
from jiio.layout import Spec, Tree, leaves, map_tree

OURS = (3e-2, 1e-2, 3e-3)  # tolerances that torchdeq is held against
THEIRS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)  # of which it is given the one that it is quickest with
AIM = 0.4


class Network:
    """One cell for both, with gradients for its weights alone."""

    def __init__(self, at: Case) -> None:
        self.cell: Any = at.problem.cell
        self.x = at.x0
        self.weights = [p.requires_grad_() for p in self.cell.module.parameters()]
        self.z0: Tree = map_tree(torch.zeros_like, self.cell.initial_state(self.x))
        self.tree = _pytree.tree_structure(self.z0)
        self.spec = Spec.of(self.z0)

    def finish(self, z: Tree) -> None:
        """The backward pass of a number of z."""
        total = torch.stack([leaf.square().mean() for leaf in leaves(z)]).sum()
        torch.autograd.grad(total, self.weights, allow_unused=True)

    def residual(self, z: Tree) -> float:
        """The mean over samples of |f(z) - z| / |f(z)|, by one evaluation."""
        with torch.no_grad():
            old, new = self.spec.pack(z), self.spec.pack(self.cell(z, self.x))
        return float(((new - old).norm(dim=1) / new.norm(dim=1)).mean())

    def ours(self, tolerance: float) -> Tree:
        close = jiio.Tolerance(0.0, tolerance)
        adjoint = jiio.Implicit(tolerance=close)
        return jiio.equilibrium(self.cell, self.x, self.z0, tolerance=close, adjoint=adjoint, on_failure="ignore").z

    def theirs(self, tolerance: float) -> Tree:
        """As many steps of the same solver both ways as ours may take."""
        from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

        limits = {"f_max_iter": 100, "b_max_iter": 100, "f_tol": tolerance, "b_tol": tolerance}
        solver = get_deq(f_solver="anderson", b_solver="anderson", **limits)

        def flat(*z: Tensor) -> tuple[Tensor, ...]:
            return tuple(leaves(self.cell(_pytree.tree_unflatten(list(z), self.tree), self.x)))

        return _pytree.tree_unflatten(list(solver(flat, leaves(self.z0))[0][-1]), self.tree)


def passes(setting: Setting) -> Row:
    """Forward plus backward: for each of our tolerances, the quickest of torchdeq's that ends as near."""
    try:
        import torchdeq  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {"verdict": "torchdeq is not installed"}
    network, few = Network(case("tiny" if setting.fast else "cifar-large", setting)), 2 if setting.fast else 5

    def both(solve: Callable[[float], Tree], tolerance: float) -> tuple[float, float]:
        """Milliseconds of forward and backward, and how near it ended."""
        spent = setting.timed(lambda: network.finish(solve(tolerance)), few, warm=1)
        return spent, network.residual(solve(tolerance))

    # Theirs once, at all tolerances; ours beside the quickest of those that ended as near.
    published = [both(network.theirs, tolerance) for tolerance in THEIRS]
    row: Row = {}
    for tolerance in OURS:
        spent, left = both(network.ours, tolerance)
        near = [ms for ms, other in published if other <= 1.1 * left]
        row |= {f"residual at {tolerance:g}": left, f"ours ms at {tolerance:g}": spent}
        row[f"ours / torchdeq at {tolerance:g}"] = spent / min(near) if near else 0.0  # 0: it never came as near
    ratios = [row[f"ours / torchdeq at {tolerance:g}"] for tolerance in OURS]
    return judged(row, setting, max(ratios) <= AIM)


def autocast(setting: Setting) -> Row:
    """Evaluations under autocast over those without, and how far the gradients are apart."""
    network = Network(case("tiny" if setting.fast else "cifar-tiny", setting))
    # The same random functional of both equilibria.
    counts, found = [], []
    for low in (False, True):
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=low):
            solution = jiio.equilibrium(network.cell, network.x, network.z0, on_failure="ignore")
        draws = torch.Generator(setting.device).manual_seed(0)
        flat = network.spec.pack(solution.z)
        probe = torch.randn(flat.shape, generator=draws, device=setting.device)
        grads = torch.autograd.grad((flat * probe).sum(), network.weights, allow_unused=True)

        # The gradient in one piece.
        counts.append(solution.evaluations.cell)
        found.append(torch.cat([g.flatten() for g in grads if g is not None]))
    row: Row = {"evaluations": counts[0], "under autocast": counts[1], "ratio": counts[1] / counts[0]}
    row["gradient apart"] = float((found[1] - found[0]).norm() / found[0].norm())
    return judged(row, setting, row["ratio"] <= 1.3 and row["gradient apart"] <= 0.03)
