"""The joint attack: state, multiplier and perturbation in one solve.

PGD on an equilibrium model pays a forward and an adjoint solve for every step. Here the network, its adjoint and the
adversarial example converge together (JIIO, Gurumurthy et al. 2021, section on adversarial training), at one evaluation
and one vector-Jacobian product a step. The published attack has a normalised L2 step, no bounds and no random start;
ours projects onto ball and box exactly and keeps the strongest point on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, check_number
from jiio.layout import Spec
from jiio.persample import placed, rows_of

from ..base import AbstractAttack, rows
from ..objectives import AbstractObjective, CrossEntropy, margin
from ..runs import Best, Run, check_targets, restarted
from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class JointAttack(AbstractAttack):
    """Maximise the objective over x while the equilibrium is being solved; for :class:`jiio.EquilibriumModel`.

    steps: evaluations (and vector-Jacobian products) of one solve, after the two that measure its scale. objective,
    targets, restarts: as in :class:`jiio.attacks.PGD`. random_start: the first run starts at a random point too. rule,
    solver: of :func:`jiio.solve`; None, chosen by the norm: in L2 and L1 gradient steps, all of the vector accelerated;
    in Linf sign steps of falling length, state and multiplier accelerated (a Euclidean step fills the ball corner by
    corner, and signs that are mixed are no signs). tolerance: of the solve. settle, lag: points on the way are looked
    at after so many steps, and where the state is off by at most this share of its size; before, and elsewhere, its
    scores are not those of x. check: how many of the found points (the end of the solve, the strongest on the way) are
    compared at a fresh equilibrium; 1 takes the strongest on the way unseen.
    """

    needs_equilibrium = True

    steps: int = 60
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    targets: int | tuple[int, ...] = 3
    restarts: int = 1
    random_start: bool = False
    rule: jiio.AbstractRule | None = None
    solver: jiio.AbstractSolver | None = None
    tolerance: jiio.Tolerance = jiio.Tolerance(1e-5, 1e-3)
    settle: int = 5
    lag: float = 0.1
    check: int = 2

    def __post_init__(self) -> None:
        check_integer("JointAttack.steps", self.steps, 2)
        check_instance("JointAttack.objective", self.objective, AbstractObjective)
        check_targets("JointAttack.targets", self.targets)
        check_integer("JointAttack.restarts", self.restarts, 1)
        if self.rule is not None:
            check_instance("JointAttack.rule", self.rule, jiio.AbstractRule)
        if self.solver is not None:
            check_instance("JointAttack.solver", self.solver, jiio.AbstractSolver)
        check_instance("JointAttack.tolerance", self.tolerance, jiio.Tolerance)
        check_integer("JointAttack.settle", self.settle, 0)
        check_number("JointAttack.lag", self.lag, 0.0, open_low=True)
        check_integer("JointAttack.check", self.check, 1)

    def moves(self, x: Tensor, threat: ThreatModel) -> tuple[jiio.AbstractRule, jiio.AbstractSolver]:
        """How the input x moves and how the iteration is accelerated, for the norm of the threat."""
        signs = threat.norm == "linf" and self.rule is None
        rule = FallingSign(fall(self.steps), stride=threat.steps(x, 1.0).flatten(1)) if signs else jiio.GradientStep()
        solver = jiio.Anderson(memory=6, blocks=("z", "mu")) if signs else jiio.Anderson()
        return self.rule or rule, self.solver or solver

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        return restarted(self, self._once, Run(model, x, y, threat), generator)

    def _once(self, run: Run) -> Tensor:
        model, x, y, aimed = run.model, run.x, run.y, run.aimed
        seen = _Watch(x, y, self.settle, self.lag)
        objective = _Lowered(seen, self.objective, y, aimed)
        problem = model.problem(objective, run.threat.prox(x))
        rule, solver = self.moves(x, run.threat)
        solution = jiio.solve(
            replace(problem, cell=_Heard(problem.cell, seen)),
            run.start,
            solver=solver,
            rule=rule,
            adjoint=jiio.Detached(),
            tolerance=self.tolerance,
            max_steps=self.steps,
            on_failure="ignore",
            callback=seen.step,
        )
        model.counts.record(solution.evaluations)

        # What the solve believed on its way is compared at a fresh equilibrium.
        best = Best.empty(x)
        found = [seen.strongest, solution.x][: self.check]
        if len(found) == 1:
            return found[0]
        for candidate in found:
            best.offer(candidate, model.predict(candidate).logits, y)
        return best.x


@dataclass(frozen=True)
class FallingSign(jiio.SignStep):
    """Sign steps in shares of ``stride`` (B, n), the radius of the ball at every number of the input."""

    stride: Tensor | float = 1.0

    def rows(self, index: Tensor, batch: int) -> jiio.AbstractRule | None:
        return replace(
            self, stride=self.stride.index_select(0, index) if isinstance(self.stride, Tensor) else self.stride
        )

    def update(
        self, x: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], rate: Tensor | float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x - rate * self.stride * gradient.sign(), ()


def fall(steps: int, first: float = 0.5, last: float = 0.02) -> Callable[[int], float]:
    """Shares of the radius that fall geometrically from the first step to the last."""
    return lambda k: first * (last / first) ** (min(k, steps) / steps)


class _Watch:
    """Keeps the strongest x that a solve passes through, by the scores at the state of that moment.

    An objective at a state that lags behind peaks where the true one does not. So a point counts only where its state
    is believed; where none was, the one whose state was nearest to an equilibrium.
    """

    def __init__(self, x: Tensor, y: Tensor, settle: int, lag: float) -> None:
        self.found, self.y, self.settle, self.lag = Best.empty(x), y, settle, lag
        self.logits: Tensor | None = None  # (B, classes), as of the last evaluation of each sample
        self.off = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
        self.nearest, self.least = x.clone(), self.off.clone()
        self.present: Tensor | None = None  # the samples of the last evaluation; None: all

    @property
    def strongest(self) -> Tensor:
        """(B, ...)."""
        return torch.where(rows(torch.isinf(self.found.margin), self.nearest), self.nearest, self.found.x)

    def hear(self, z: Any, image: Any, places: Tensor | None = None) -> None:
        """One evaluation of the cell: how far z was from an equilibrium, relative to its size; ``places`` (k,): of
        which samples (None: of all).
        """
        with torch.no_grad():
            spec = Spec.of(z)
            before, after = spec.pack(z), spec.pack(image)
            off = (after - before).norm(dim=1) / after.norm(dim=1).clamp_min(torch.finfo(after.dtype).tiny)
            self.off = off if places is None else placed(self.off, places, off)
            self.present = places

    def keep(self, logits: Tensor, places: Tensor | None = None) -> None:
        """The scores of a step, which has paid for them already."""
        logits = logits.detach()
        self.logits = logits if places is None or self.logits is None else placed(self.logits, places, logits)

    def step(self, step: int, z: Any, x: Tensor, value: Tensor) -> None:
        """``callback`` of :func:`jiio.solve`: offer the input of this step, by the scores of its evaluation.

        Those who have left were offered when they were evaluated; what was heard of them since is of other points, at
        which the solve has looked before it let them go.
        """
        if step < self.settle or self.logits is None:
            return
        off = self.off
        if self.present is not None:
            off = placed(torch.full_like(off, float("inf")), self.present, off[self.present])
        nearer = off < self.least
        self.nearest = torch.where(rows(nearer, x), x, self.nearest)
        self.least = torch.where(nearer, off, self.least)
        who = torch.nonzero(off <= self.lag)[:, 0]
        self.found.enter(x[who], margin(self.logits[who], self.y[who]), who)


class _Lowered:
    """Scores -> minus what the attack makes large, (B,); the scores are told to ``seen``. places (k,): of which samples
    they are, None: of all.
    """

    def __init__(
        self, seen: _Watch, objective: AbstractObjective, y: Tensor, aimed: Tensor | None, places: Tensor | None = None
    ) -> None:
        self.seen, self.objective, self.y, self.aimed, self.places = seen, objective, y, aimed, places

    def __call__(self, logits: Tensor) -> Tensor:
        self.seen.keep(logits, self.places)
        return -self.objective(logits, self.y, self.aimed)

    def rows(self, index: Tensor) -> _Lowered | None:
        """The samples ``index`` (k,); an objective may hold numbers of its own of the whole batch."""
        objective = rows_of(self.objective, index)
        if objective is None:
            return None
        aimed = None if self.aimed is None else self.aimed.index_select(0, index)
        places = index if self.places is None else self.places.index_select(0, index)
        return _Lowered(self.seen, objective, self.y.index_select(0, index), aimed, places)


class _Heard:
    """A cell whose evaluations are told to ``seen``. places (k,): of which samples they are, None: of all."""

    def __init__(self, cell: Any, seen: _Watch, places: Tensor | None = None) -> None:
        self.cell, self.seen, self.module, self.places = cell, seen, cell.module, places

    def __call__(self, z: Any, x: Tensor) -> Any:
        image = self.cell(z, x)
        self.seen.hear(z, image, self.places)
        return image

    def rows(self, index: Tensor) -> _Heard | None:
        """The samples ``index`` (k,), where the cell offers that."""
        cell = rows_of(self.cell, index)
        return None if cell is None else _Heard(cell, self.seen, index if self.places is None else self.places[index])

    def initial_state(self, x: Tensor) -> Any:
        return self.cell.initial_state(x)
