"""``solution_at``: the record of a point that was found in another way, judged as a solve would judge it."""

from __future__ import annotations

import torch
from torch import Tensor

from .adjoints import AbstractAdjoint, Detached, Implicit
from .arithmetic import Arithmetic, ordinary
from .calls import check_transforms, guarded
from .checks import check_instance, fail
from .holding import held_fixed
from .layout import Spec, Tree, check_tree, detach, leaves
from .operators import JointMap, Scales, check_scaling
from .problem import Problem
from .progress import judged
from .rules import GradientStep
from .solution import Evaluations, Solution, Tolerance


def solution_at(
    problem: Problem,
    x: Tree,
    z: Tree,
    *,
    multiplier: Tree | None = None,
    scaling: tuple[Tensor, Tensor] | None = None,
    implicit: Implicit = Implicit(),  # noqa: B008 (frozen records)
    adjoint: AbstractAdjoint = Detached(),  # noqa: B008
    tolerance: Tolerance = Tolerance(),  # noqa: B008
) -> Solution:
    """The :class:`jiio.Solution` at (x, z), trees of tensors (B, ...), as :func:`jiio.solve` would measure it.

    problem: cell, objective and constraint. multiplier: a tree like z; where left out, mu = J_z^T mu + l_z is solved
    for as ``implicit`` says. scaling: the units of the residual and of the adjoint's linear system, as
    ``Solution.scaling`` has them; where left out, those of mu and x themselves. adjoint: attaches gradients as in a
    solve. tolerance: a sample is CONVERGED where every block meets it here, NONFINITE where something is NaN or
    infinite, else MAX_STEPS; ``steps`` is 0.

    x is taken as it is: where it is infeasible or not stationary, the residual of block x says so, and an exact outer
    gradient is not exact. Costs one evaluation and one VJP, and one more evaluation and the VJPs of ``implicit`` where
    the multiplier is solved for.

    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell or objective breaks its
    contract, UnsupportedError inside transforms of ``torch.func``.
    """
    check_transforms("solution_at")
    check_instance("problem", problem, Problem)
    check_instance("implicit", implicit, Implicit)
    check_instance("adjoint", adjoint, AbstractAdjoint)
    check_instance("tolerance", tolerance, Tolerance)
    arithmetic = Arithmetic.around(leaves(check_tree("x", x))[0])
    x, z = (ordinary(arithmetic.raised(tree)) for tree in (x, z))
    like = leaves(x)[0]
    check_tree("z", z, like.shape[0], like)
    if multiplier is not None and Spec.of(check_tree("multiplier", multiplier, like.shape[0], like)) != Spec.of(z):
        fail("multiplier", "the same tree and shapes as z", multiplier)
    check_scaling(scaling, like)

    with arithmetic.full(), held_fixed(problem.cell):
        problem = guarded(problem, arithmetic)
        solution = _measured(problem, detach(x), detach(z), multiplier, scaling, implicit, tolerance)
        return adjoint.attach(problem, solution) if torch.is_grad_enabled() else solution


@torch.no_grad()
def _measured(
    problem: Problem,
    x: Tree,
    z: Tree,
    multiplier: Tree | None,
    scaling: tuple[Tensor, Tensor] | None,
    implicit: Implicit,
    tolerance: Tolerance,
) -> Solution:
    # A rate of 1 in the map's own units: the residual of a solve does not depend on the rate.
    operator = JointMap(problem, GradientStep(1.0), x, z, 1.0, differentiable=False)
    if multiplier is None:
        multiplier = _multiplier(problem, x, z, implicit, operator.evaluations)
    multiplier = detach(multiplier)
    flat = operator.xspec.pack(x)

    # One step of the joint map from here tells all that a solve would know; x is not projected, or an infeasible one
    # would pass.
    if scaling is not None:
        operator.scales = Scales.given(scaling, flat)
    point = operator(operator.scales.pack(operator.zspec.pack(z), operator.zspec.pack(multiplier), flat))
    assert point.value is not None
    return Solution(
        z=z,
        x=x,
        multiplier=multiplier,
        value=point.value,
        status=judged(point, tolerance),
        steps=torch.zeros(len(point.value), dtype=torch.int64, device=point.value.device),
        residual=point.residual,
        blocks=operator.blocks,
        evaluations=operator.evaluations,
        scaling=None if scaling is None else operator.scales.pair,
        gradient=point.gradient,
    )


def _multiplier(problem: Problem, x: Tree, z: Tree, implicit: Implicit, counts: Evaluations) -> Tree:
    """mu = J_z^T mu + l_z at (z, x), a tree like z."""
    spec = Spec.of(z)
    with torch.enable_grad():
        leaf = spec.pack(z).clone().requires_grad_()
        image = spec.pack(spec.check(problem.cell(spec.unpack(leaf), x), leaf.detach(), "cell", "z'"))
        value = problem.value(spec.unpack(leaf), x, len(leaf))
        slope = torch.autograd.grad(value.sum(), leaf)[0] if value.requires_grad else torch.zeros_like(leaf)
    counts.cell += 1

    # Of a cell that does not depend on z nothing comes back, and mu = l_z.
    def transposed(u: Tensor) -> Tensor | None:
        if not image.requires_grad:
            return None
        counts.vjp += 1
        return torch.autograd.grad(image, leaf, u, retain_graph=True, allow_unused=True)[0]

    return spec.unpack(implicit.solve_transposed(transposed, slope, Arithmetic.around(slope))[0])
