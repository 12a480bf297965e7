"""Parts of attacks that a whole attack can do without noticing: each alone, where a fault changes the answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import blobs, equilibrium, linear
from jiio.attacks import (
    PGD,
    AbstractAttack,
    CrossEntropy,
    IntermediateAttack,
    JointAttack,
    Margin,
    Square,
    Target,
    ThreatModel,
    margin,
)
from jiio.attacks.evaluation.probes import converged
from jiio.attacks.methods.equilibrium import _Carried
from jiio.attacks.methods.search import _Warm
from jiio.attacks.runs import Best, Run, restarted

X, Y = blobs(5, seed=5)
THREAT = ThreatModel("linf", 0.08)
EPS = torch.finfo(torch.float32).eps


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- feasibility


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_point_inside_the_ball_and_outside_the_box(norm: str) -> None:
    x = torch.tensor([[0.95, 0.5], [0.05, 0.5], [0.5, 0.5]])
    point = torch.tensor([[1.05, 0.5], [-0.05, 0.5], [0.6, 0.5]])
    found = ThreatModel(norm, 0.2).violation(point, x)
    assert torch.allclose(found, torch.tensor([0.05, 0.05, 0.0], dtype=torch.float64), atol=1e-6)
    per_pixel = ThreatModel(norm, 0.2, (torch.tensor([0.0, 0.45]), torch.tensor([1.2, 0.48])))
    assert torch.allclose(per_pixel.violation(point, x)[2], torch.tensor(0.02, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("norm", "size"), [("linf", 1.0), ("l2", 6.0), ("l1", 36.0)])
def test_what_rounding_is_forgiven(norm: str, size: float) -> None:
    """A few roundings of numbers near 1, as the norm adds them up: not a hundred."""
    slack = ThreatModel(norm, 0.1).slack(torch.ones(1, 1, 6, 6))
    assert 1.0 * EPS * size <= float(slack) <= 10.0 * EPS * size


def test_what_is_too_far_by_more_than_rounding_is_brought_back() -> None:
    """Twenty roundings outside are outside."""
    off = 20 * EPS

    class Far(AbstractAttack):
        def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
            return x + 0.08 + off

    x = torch.full((1, 1, 6, 6), 0.5)
    result = Far()(equilibrium(), x, Y[:1], THREAT)
    moved = (result.x.double() - x.double()).abs().max()
    assert float(moved) == 0.0 or float(moved) <= 0.08 + 4 * EPS


# -- runs


@dataclass
class Twice:
    objective = CrossEntropy()
    targets: int = 1
    restarts: int = 3
    random_start: bool = False


def test_a_later_run_never_replaces_a_stronger_find() -> None:
    """Three runs, the second the strongest, none of which breaks anything."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    model, x = linear(weight, torch.zeros(2, dtype=torch.float64)), torch.full((2, 2), 0.9, dtype=torch.float64)
    shifts = iter((0.1, 0.3, 0.2))

    def once(run: Run) -> Tensor:
        return run.x - torch.tensor([next(shifts), 0.0], dtype=torch.float64)

    run = Run(Target(model), x, torch.zeros(2, dtype=torch.int64), ThreatModel("linf", 0.4))
    found = restarted(Twice(), once, run, draws(0))
    assert torch.allclose(found[:, 0], torch.full((2,), 0.6, dtype=torch.float64))


def test_what_is_broken_is_left_alone_by_later_runs() -> None:
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    model, seen = linear(weight, torch.zeros(2, dtype=torch.float64)), []
    x = torch.tensor([[0.1], [0.9]], dtype=torch.float64)

    def once(run: Run) -> Tensor:
        seen.append(len(run.x))
        return run.x - 0.3

    run = Run(Target(model), x, torch.zeros(2, dtype=torch.int64), ThreatModel("linf", 0.4, (-1.0, 1.0)))
    restarted(Twice(), once, run, draws(0))
    assert seen == [2, 1, 1]


def test_the_best_is_kept_by_margin() -> None:
    best, y = Best.empty(torch.zeros(2, 1)), torch.tensor([0, 0])
    for value, gap in ((1.0, -2.0), (2.0, -1.0), (3.0, -3.0)):
        best.offer(torch.full((2, 1), value), torch.tensor([[0.0, gap], [0.0, -gap]]), y)
    assert best.x[:, 0].tolist() == [2.0, 3.0] and best.margin.tolist() == [-1.0, 3.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_none_have_an_infinite_margin(bad: float) -> None:
    logits = torch.tensor([[bad, 0.0], [0.0, bad], [1.0, float("-inf")], [float("-inf"), float("-inf")]])
    assert margin(logits, torch.zeros(4, dtype=torch.int64)).tolist() == [float("inf")] * 2 + [
        -float("inf"),
        float("inf"),
    ]


# -- the joint attack


def test_the_joint_attack_starts_where_it_is_told() -> None:
    """One look at the very first step shows the start: of its own with ``random_start``, of the seed."""

    def found(seed: int, random_start: bool = True) -> Tensor:
        attack = JointAttack(steps=2, settle=0, check=1, random_start=random_start)
        return attack.run(Target(equilibrium()), X, Y, THREAT, draws(seed))

    calm, one, two = found(1, False), found(1), found(2)
    assert float((one - two).abs().max()) > 0.02 and float((one - calm).abs().max()) > 0.02


def test_restarts_of_the_joint_attack_begin_elsewhere() -> None:
    seen: list[Tensor] = []
    whole = ThreatModel("linf", 1e-3)  # too little to break anything, so that every restart runs

    class Watched(JointAttack):
        def _once(self, run: Run) -> Tensor:
            seen.append(run.start.clone())
            return super()._once(run)

    Watched(steps=2, restarts=3).run(Target(equilibrium()), X, Y, whole, draws(0))
    assert len(seen) == 3 and len({float(start.sum()) for start in seen}) == 3


def test_the_end_of_the_joint_solve_is_looked_at() -> None:
    """Where no step was: settle is after the last one."""
    found = JointAttack(steps=8, settle=8).run(Target(equilibrium()), X, Y, THREAT, draws(0))
    assert float((found - X).abs().max()) > 0.02


# -- through intermediate states


def by_hand(state: int, unrolled: int, damping: float) -> Tensor:
    """The gradient of the cross-entropy after so many plain and damped steps, written out."""
    model, leaf = equilibrium(), X.clone().requires_grad_()
    z = torch.zeros_like(model.inject(X))
    with torch.no_grad():
        for _ in range(state):
            z = model.cell(z, model.inject(X))
    for _ in range(unrolled):
        z = (1 - damping) * z + damping * model.cell(z, model.inject(leaf))
    loss = nn.functional.cross_entropy(model.head(z), Y, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize(("state", "unrolled", "damping"), [(0, 1, 1.0), (1, 1, 0.5), (1, 3, 0.5), (0, 2, 0.25)])
def test_gradients_through_intermediate_states(state: int, unrolled: int, damping: float) -> None:
    found = IntermediateAttack(damping=damping).gradient(Target(equilibrium()), X, Y, state, unrolled)
    assert torch.allclose(found, by_hand(state, unrolled, damping), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("ensemble", "runs"), [(False, 4), (True, 6)])
def test_the_ensemble_of_states_is_one_more_run(ensemble: bool, runs: int) -> None:
    """Two states by two depths, and then both states at once: counted where nothing breaks."""
    attack = IntermediateAttack(steps=3, states=(1, 2), unrolled=(1, 2), ensemble=ensemble)
    target, right = Target(equilibrium()), equilibrium()(X).argmax(1)
    attack.run(target, X, right, ThreatModel("linf", 1e-4), draws(0))
    assert target.counts.backward == 3 * runs


def test_the_carried_adjoint_ends_at_the_gradient() -> None:
    """At a point that stands still, many joint steps are the implicit gradient."""
    target = Target(equilibrium(), tolerance=jiio.Tolerance(1e-7, 1e-7))

    def value(logits: Tensor) -> Tensor:
        return Margin()(logits, Y)

    carried = _Carried.from_state(target, target.problem(value, jiio.Identity()), 120, target.predict(X).state)
    exact = converged(target, torch.float32).slope(X, value).gradient
    assert torch.allclose(carried.slope(X), exact, rtol=1e-3, atol=1e-5)


# -- what an attack is charged and spared


def test_warm_starts_save_evaluations() -> None:
    """Of a solver that is near its end already."""
    costs = [PGD(steps=6, warm=warm, random_start=False)(equilibrium(), X, Y, THREAT).cost for warm in (False, True)]
    assert costs[1]["evaluations"] < 0.9 * costs[0]["evaluations"]


def test_what_is_wrong_untouched_stays_untouched() -> None:
    """However much stronger a point the attack has found."""
    wrong = (Y + 1) % 4
    result = PGD(steps=3)(equilibrium(), X, wrong, THREAT)
    assert torch.equal(result.x, X) and bool(result.success.all()) and float(result.distance.max()) == 0.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_warm_search_is_cheaper_and_as_strong(norm: str) -> None:
    threat = ThreatModel(norm, {"linf": 0.15, "l2": 0.8}[norm])
    cold, warm = (Square(queries=40, warm=warm)(equilibrium(), X, Y, threat) for warm in (False, True))
    assert warm.cost["evaluations"] < 0.9 * cold.cost["evaluations"]
    assert torch.equal(cold.success, warm.success) and torch.allclose(cold.margin, warm.margin, atol=0.05)


def test_only_a_fresh_start_breaks() -> None:
    """The margin of what looks broken from a warm start is that of a cold one."""

    class Lags(Target):
        def forward(self, x: Tensor, z0: object = None):
            logits, reached = super().forward(x)
            return (logits, reached) if z0 is None else (logits.roll(1, 1), reached)  # wrong where it is warm

    clean = Target(equilibrium()).predict(X)
    found = Square(queries=3).run(Lags(equilibrium()), X, clean.label, ThreatModel("linf", 1e-4), draws(0))
    judge = _Warm(Lags(equilibrium()), clean.label, clean.state)
    gap = judge(found, torch.arange(len(X)), torch.full((len(X),), -1e9))
    cold = margin(Target(equilibrium()).predict(found).logits, clean.label)
    assert bool((cold < 0).all()) and torch.allclose(gap, cold, atol=1e-5)
