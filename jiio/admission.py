"""What a solve looks at before it begins: its arguments, one by one and together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .arithmetic import Arithmetic, ordinary
from .calls import check_transforms
from .checks import GradientError, check_finite, check_instance, fail
from .layout import Spec, Tree, check_tree, conformed, leaves
from .problem import Cell, Problem, initial_state
from .rules import AbstractRule, GradientStep
from .solvers import AbstractSolver, Anderson

Callback = Callable[[int, Tree, Tree, Tensor], object]


def check_joint(problem: Problem, rule: AbstractRule) -> None:
    """Problem and rule, and whether the fixed points of the rule are optimal under the problem's prox."""
    check_transforms("solve")
    check_instance("problem", problem, Problem)
    check_instance("rule", rule, AbstractRule)
    if torch.is_inference_mode_enabled():
        came, remedy = "torch.inference_mode()", "Use torch.no_grad()."
        fail("solve", "a mode in which gradients can be taken", came, remedy, GradientError)
    prox, name = problem.prox, type(rule).__name__

    # A prior has to see the very step that the input takes.
    if not rule.exact_step and not prox.is_set:
        remedy = "Use GradientStep(), or put the prior into the objective."
        fail("rule", f"a plain gradient step with the prior {type(prox).__name__}", name, remedy)

    # Under a scale per coordinate a projection in the plain norm ends somewhere else.
    if rule.diagonal and not prox.separable:
        remedy = "Its fixed points would not be optimal; use GradientStep() or NormalizedStep()."
        came = f"{name} with {type(prox).__name__}"
        fail("rule", "a rule without a per-coordinate scale where the constraint couples coordinates", came, remedy)


def checked_multiplier(multiplier: Tree | None, z0: Tree, like: Tensor) -> Tree | None:
    """None, or finite and like z0."""
    if multiplier is None:
        return None
    multiplier = conformed(multiplier, z0)
    if Spec.of(check_tree("multiplier", multiplier, like.shape[0], like)) != Spec.of(z0):
        fail("multiplier", "the same tree and shapes as z0", multiplier)
    for leaf in leaves(multiplier):
        check_finite("multiplier", leaf)
    return ordinary(multiplier)


def starting_state(cell: Cell, x: Tree, z0: Tree | None, arithmetic: Arithmetic) -> Tree:
    """The state to start from, finite."""
    z0 = initial_state(cell, x, None if z0 is None else arithmetic.raised(z0), leaves(x)[0])
    for leaf in leaves(z0):
        check_finite("z0", leaf)
    return ordinary(z0)


def checked_input(argument: str, x: Tree) -> tuple[Tree, Arithmetic]:
    """A checked input, in the precision that a solve runs in, and the arithmetic around the solve."""
    arithmetic = Arithmetic.around(leaves(check_tree(argument, x))[0])
    return ordinary(arithmetic.raised(x)), arithmetic


def check_trace(trace: bool | str) -> None:
    if trace not in (True, False, "points"):
        fail("trace", "True, False or 'points' (which keeps every iterate)", trace)


def check_one_scale(scaling: Any, rule: AbstractRule) -> None:
    if scaling is not None and rule.curvature is not None:
        fail("scaling", "a rule without a curvature of its own", f"{type(rule).__name__}.curvature", "Leave one out.")


def check_explicit(
    z0: Any, multiplier: Any, scaling: Any, solver: AbstractSolver, rule: AbstractRule, metric: Any
) -> None:
    """Raise for what an explicit problem has no use for."""
    given = {
        "z0": z0 is not None,
        "multiplier": multiplier is not None,
        "scaling": scaling is not None,
        "solver": solver != Anderson(),
        "rule": rule != GradientStep(),
        "metric": metric is not None,
    }
    for name in (name for name, said in given.items() if said):
        fail(name, "none for Problem.explicit, which is solved by L-BFGS on x alone", "one", "Leave it out.")
