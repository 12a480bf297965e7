"""Regularised dynamics: the input is moved towards a confident prediction while the equilibrium is being solved.

Yang, Li, Pang and Liu ("Improving adversarial robustness of deep equilibrium models with explicit regulations along the
neural dynamics", ICML 2023). Two parts, to be used together or alone:

- at inference, ``rounds`` times: a few solver steps on z for the present x; then ``updates`` steps

      x <- clip( x - step sign grad_x H(softmax(head(f(z, x)))) ;  x0 +- radius ;  bounds ),     H the entropy;

- in training, the loss is taken at a random intermediate state (:func:`intermediate_scores`).

What differs from the published code: it keeps Broyden's history over the rounds and corrects its last update for the
new x; here the solver starts anew at the present z. It predicts from the last but one state; here the equilibrium for
the final x is solved like any other, so that the prediction is one of an equilibrium. Its attacks bypass the defence.
Here the defended model is what is attacked, see :class:`RegulatedModel` for the gradient.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adjoints import Detached, Unrolled
from ...checks import ArgumentTypeError, check_instance, check_integer, check_number, fail
from ...layout import Spec, Tree, detach
from ...solution import Evaluations, Solution
from ...solving import equilibrium
from ..equilibrium import BoundCell, EquilibriumModel
from ..layers import check_gradients


def entropy(scores: Tensor) -> Tensor:
    """H(softmax(scores)) in nats: (B, classes) -> (B,)."""
    return torch.special.entr(F.softmax(scores, dim=1)).sum(1)


def _check_bounds(bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        fail("bounds", "a pair (low, high)", bounds, error=ArgumentTypeError)
    low = check_number("bounds", bounds[0])
    return low, check_number("bounds", bounds[1], low, open_low=True)


class RegulatedModel(EquilibriumModel):
    """The equilibrium model with these parts, whose input is regulated during every solve.

    inject, cell, head, options: as for :class:`jiio.EquilibriumModel`. radius: of the box around x in which the input
    moves; that of the attack, in Linf, is meant. step: of one update; None for a quarter of ``radius``, as 2/255 in
    8/255. rounds, solver_steps, updates: 4, 2 and 10 in the paper. bounds: of valid inputs. softness: 0 for the sign of
    the gradient g, as published; above 0 an update goes along g / (|g| + softness mean|g|), see :meth:`smoothed`.

    The gradient of ``forward`` and ``solve`` passes through the defence. The derivative of the sign is zero wherever it
    exists, so the regulated input follows x like the identity, but for what ``bounds`` and ball clip: exact almost
    everywhere, and blind to the jumps where a sign flips. ``smoothed`` gives the twin to attack besides: its updates
    have a slope, which is differentiated with the states that they come from. ``problem`` is that of the undefended
    model, so that attacks that build their own (JointAttack, IntermediateAttack) bypass the defence, as the published
    ones do; what they find counts only where the defended model falls for it.
    """

    def __init__(
        self,
        inject: torch.nn.Module,
        cell: torch.nn.Module,
        head: torch.nn.Module,
        *,
        radius: float,
        step: float | None = None,
        rounds: int = 4,
        solver_steps: int = 2,
        updates: int = 10,
        bounds: tuple[float, float] = (0.0, 1.0),
        softness: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(inject, cell, head, **options)
        # One update, and how many of them there are.
        self.radius = check_number("radius", radius, 0.0, open_low=True)
        self.step = self.radius / 4 if step is None else check_number("step", step, 0.0, open_low=True)
        self.rounds = check_integer("rounds", rounds, 1)
        self.solver_steps = check_integer("solver_steps", solver_steps, 2)
        self.updates = check_integer("updates", updates, 1)

        self.bounds = _check_bounds(bounds)
        self.softness = check_number("softness", softness, 0.0)

    @classmethod
    def of(cls, model: EquilibriumModel, *, radius: float, **settings: Any) -> RegulatedModel:
        """The defended twin of a model: its parts, its settings of the solve, its mode. radius, settings: as the
        constructor has them.
        """
        check_instance("model", model, EquilibriumModel)
        options = model.settings.arguments() | settings
        return cls(model.inject, model.cell, model.head, radius=radius, **options).train(model.training)

    def smoothed(self, softness: float = 0.5) -> RegulatedModel:
        """The same defence with g / (|g| + softness mean|g|) in place of sign g: a surrogate for attacks."""
        check_number("softness", softness, 0.0, open_low=True)
        names = ("step", "rounds", "solver_steps", "updates", "bounds")
        settings = {name: getattr(self, name) for name in names}
        return type(self).of(self, radius=self.radius, softness=softness, **settings)

    def solve(self, x: Tensor, **overrides: Any) -> Solution:  # type: ignore[override]
        """The equilibrium for the regulated input, as :meth:`jiio.EquilibriumModel.solve`; ``x`` in it is the given
        one. What the defence costs is counted in ``evaluations``.
        """
        moved, cost = self._regulated(x)
        solution = super().solve(moved, **overrides)
        solution.evaluations.cell += cost.cell
        solution.evaluations.vjp += cost.vjp
        return dataclasses.replace(solution, x=x)

    def regulate(self, x: Tensor) -> Tensor:
        """The input (B, ...) after all rounds, with its graph to x where grad mode is on."""
        return self._regulated(x)[0]

    def _regulated(self, x: Tensor) -> tuple[Tensor, Evaluations]:
        check_gradients("RegulatedModel")
        taped = torch.is_grad_enabled() and self.softness > 0
        cell = BoundCell(self, self.cell, self.inject)
        low, high = ((x + sign * self.radius).clamp(*self.bounds) for sign in (-1.0, 1.0))
        adjoint = Unrolled() if taped else Detached()
        settings = self.settings.merged(adjoint=adjoint, max_steps=self.solver_steps, on_failure="ignore")
        moved, z, cost = x, None, Evaluations()

        for _ in range(self.rounds):
            # A few steps of the state for the input as it is now, from where the state was;
            with torch.set_grad_enabled(taped):
                solution = equilibrium(cell, moved, z, **settings.arguments())
            z = solution.z if taped else detach(solution.z)
            cost.cell += solution.evaluations.cell + self.updates
            cost.vjp += self.updates
            # then steps of the input, each held in the box and in the bounds.
            for _ in range(self.updates):
                slope = self._slope(cell, z, moved, taped)
                moved = torch.minimum(torch.maximum(moved - self.step * slope, low), high)
        return moved, cost

    def _slope(self, cell: BoundCell, z: Any, x: Tensor, taped: bool) -> Tensor:
        """The direction of an update, each number in [-1, 1]."""
        with torch.enable_grad():
            # An alias: the state depends on x as well, and is held while x moves.
            leaf = x.clone() if taped and x.requires_grad else x.detach().requires_grad_()
            total = entropy(self.head(cell(z, leaf))).sum()
            (gradient,) = torch.autograd.grad(total, leaf, create_graph=taped)
        if self.softness == 0:
            return gradient.sign()
        size = gradient.abs()
        mean = size.flatten(1).mean(1).view(-1, *([1] * (x.dim() - 1)))
        return gradient / (size + self.softness * mean).clamp_min(torch.finfo(x.dtype).tiny)


@torch.no_grad()
def _on_the_way(model: EquilibriumModel, cell: BoundCell, u: Tree, steps: int) -> Tree:
    """The state after ``steps`` steps of the model's solver."""
    z = cell.initial_state(u)
    if steps == 1:
        return cell(z, u)
    settings = model.settings.merged(adjoint=Detached(), max_steps=steps, on_failure="ignore")
    return equilibrium(cell, detach(u), z, **settings.arguments()).z


def intermediate_scores(
    model: EquilibriumModel, x: Tensor, *, steps: int, unrolled: int = 5, damping: float = 0.5
) -> Tensor:
    """The scores (B, classes) at a state on the way: ``steps`` steps of the model's solver without a graph, then
    ``unrolled`` steps z <- (1 - damping) z + damping f(z) with one (Yang et al. 2023, section 3.3).

    x: (B, ...), as the model takes it. Where ``steps`` is drawn anew for every batch, from 1 to 8 in the paper, all
    states on the way are trained to predict well. Raises ArgumentError / ArgumentTypeError for unusable arguments.
    """
    check_instance("model", model, EquilibriumModel)
    check_integer("steps", steps, 1)
    check_integer("unrolled", unrolled, 1)
    check_number("damping", damping, 0.0, 1.0, open_low=True)

    cell = BoundCell(model.cell, model.cell, None)
    u = model.inject(x)
    z = _on_the_way(model, cell, u, steps)

    # The damped steps are taken on the packed state, one line for a tree of any form.
    spec = Spec.of(z)
    packed = spec.pack(detach(z))
    for _ in range(unrolled):
        packed = torch.lerp(packed, spec.pack(cell(spec.unpack(packed), u)), damping)
    return model.head(spec.unpack(packed))
