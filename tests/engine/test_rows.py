"""A solve goes on without the samples that have ended: the same answers, at the price of those that still run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap, multiplier
from jiio import Status
from jiio.layout import leaves
from problems import ADJOINTS, DOUBLE, PROX, Case, make, mixed, per_sample

OPTIONS: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-6, 1e-6), "max_steps": 400, "on_failure": "ignore"}
FIELDS = ("z", "x", "multiplier", "value", "status", "steps", "residual", "scaling", "gradient")


class Counted:
    """A cell that counts calls and samples; restricted, it goes on counting in the same place."""

    def __init__(self, cell: Any, counts: list[int] | None = None, divisible: bool = True) -> None:
        self.cell, self.counts, self.divisible = cell, [0, 0] if counts is None else counts, divisible

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.counts[0] += 1
        self.counts[1] += len(z)
        return self.cell(z, x)

    def rows(self, index: Tensor) -> Counted | None:
        return Counted(self.cell, self.counts) if self.divisible else None


def posed(case: Case, prox: jiio.AbstractProx | None = None, *, divisible: bool = True) -> jiio.Problem:
    """The case in a form that can be taken apart, or that says that it cannot."""
    objective = jiio.PerSample(lambda z, x, y: case.with_(y=y).objective(z, x), case.y)
    return jiio.Problem(Counted(case.cell, divisible=divisible), objective, prox or jiio.Identity())


def both(case: Case, prox: jiio.AbstractProx | None = None, **options: Any) -> list[jiio.Solution]:
    """The solve as a whole, and the one that is divided; the second has to be the cheaper one."""
    found, prices = [], []
    for divisible in (False, True):
        problem = posed(case, prox, divisible=divisible)
        found.append(jiio.solve(problem, options.pop("x0", case.x0), case.z0, **(OPTIONS | options)))
        prices.append(problem.cell.counts)  # type: ignore[attr-defined]
    assert prices[0][1] == prices[0][0] * case.batch and prices[1][1] < 0.97 * prices[0][1]
    assert found[0].evaluations.cell == prices[0][0] and found[1].evaluations.cell == prices[1][0]
    return found


def same(a: jiio.Solution, b: jiio.Solution, bound: float = 1e-9) -> None:
    for name in FIELDS:
        for left, right in zip(leaves(getattr(a, name)), leaves(getattr(b, name)), strict=True):
            assert torch.allclose(left, right, rtol=bound, atol=bound, equal_nan=True), name


SETS = {
    "none": jiio.Identity(),
    "balls": jiio.L2Ball(torch.linspace(0.05, 2, 32, dtype=DOUBLE), center=0.1 * torch.ones(32, 4, dtype=DOUBLE)),
    "box and ball": jiio.Intersection(
        jiio.Box(-torch.linspace(0.1, 1, 32, dtype=DOUBLE)[:, None].expand(32, 4), 0.5), jiio.L2Ball(0.8)
    ),
    "thresholds": jiio.SoftThreshold(torch.linspace(0, 0.1, 128, dtype=DOUBLE).view(32, 4)),
}


@pytest.mark.parametrize("prox", SETS.values(), ids=SETS)
def test_the_answers_are_those_of_the_whole_batch(prox: jiio.AbstractProx) -> None:
    whole, divided = both(mixed(), prox)
    assert int(whole.steps.max()) > 1.5 * int(whole.steps.min())
    same(whole, divided)


LOOSE: dict[str, Any] = {"tolerance": jiio.Tolerance(3e-3, 3e-3), "max_steps": 50}
SLOW: dict[str, Any] = {"tolerance": jiio.Tolerance(3e-2, 3e-2), "max_steps": 120}
WAYS: dict[str, dict[str, Any]] = {
    "Anderson I": {"solver": jiio.Anderson(kind="I")},
    "some blocks": {"solver": jiio.Anderson(blocks=("z", "mu"))} | SLOW,
    "Broyden": {"solver": jiio.Broyden()} | LOOSE,
    "Picard": {"solver": jiio.Picard()} | SLOW,
    "damped": {"solver": jiio.Anderson(damping={"z": 0.8, "mu": 0.6})},
    "momentum": {"rule": jiio.MomentumStep()} | LOOSE,
    "Adam": {"rule": jiio.AdamStep(0.02)} | LOOSE,
    "own curvatures": {"rule": jiio.GradientStep(curvature=torch.linspace(2, 4, 32, dtype=DOUBLE))},
    "rare looks": {"tolerance": jiio.Tolerance(1e-6, 1e-6, check_every=7)},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_whatever_the_solver_and_the_rule(options: dict[str, Any]) -> None:
    whole, divided = both(mixed(), None, **options)
    same(whole, divided, bound=1e-7)


def test_in_single_precision() -> None:
    options = LOOSE | {"tolerance": jiio.Tolerance(1e-4, 1e-4)}
    whole, divided = both(mixed(torch.float32), None, **options)
    for name in ("z", "x", "multiplier"):
        assert gap(getattr(whole, name), getattr(divided, name)) < 1e-3, name


def test_samples_alone_find_what_they_find_in_a_divided_batch() -> None:
    case = mixed()
    whole = jiio.solve(posed(case), case.x0, case.z0, **OPTIONS)
    for i in (0, 7, 19, 31):
        alone = case.rows(slice(i, i + 1))
        single = jiio.solve(posed(alone), alone.x0, alone.z0, **OPTIONS)
        for name in ("z", "x", "multiplier"):
            assert gap(getattr(single, name)[0], getattr(whole, name)[i]) < 1e-6, (i, name)
        assert int(single.steps[0]) == int(whole.steps[i])


@dataclass(frozen=True)
class Dead(jiio.Identity):
    """A prox that cannot say what it is for some of the samples."""

    def bind(self, x: Any) -> Dead:
        return self


@dataclass(frozen=True)
class Whole(jiio.Picard):
    """A solver that cannot be taken apart."""

    def rows(self, state: Any, index: Tensor) -> Any:
        return NotImplemented


@dataclass(frozen=True)
class OfAll(jiio.GradientStep):
    """A rule with a field that may be anything."""

    table: Any = None


@pytest.mark.parametrize("name", ["prox", "solver", "rule", "objective", "cell"])
def test_what_cannot_be_taken_apart_stays_whole(name: str) -> None:
    case = mixed()
    problem = posed(case, Dead() if name == "prox" else None, divisible=name != "cell")
    if name == "objective":
        problem = replace(problem, objective=case.objective)
    options = OPTIONS | {"solver": {"solver": Whole()} | LOOSE, "rule": {"rule": OfAll(table=(1,))}}.get(name, {})
    solution = jiio.solve(problem, case.x0, case.z0, **options)
    calls, samples = problem.cell.counts  # type: ignore[attr-defined]
    assert samples == 32 * calls and int(solution.steps.max()) > int(solution.steps.min())
    index = torch.tensor([3, 4])
    assert (problem.rows(index, case.x0) is None) == (name in ("prox", "objective", "cell"))


# -- gradients


def gradients(case: Case, divisible: bool, adjoint: jiio.AbstractAdjoint, **options: Any) -> list[Tensor]:
    W = case.W.clone().requires_grad_()
    taped = case.with_(W=W)
    problem = posed(taped, jiio.L2Ball(0.5), divisible=divisible)
    solution = jiio.solve(problem, case.x0, case.z0, adjoint=adjoint, **(OPTIONS | options))
    fields = [getattr(solution, name) for name in ("z", "x", "value") if name in solution.differentiable]
    loss = torch.stack([part.square().sum() for part in fields]).sum()
    return [*torch.autograd.grad(loss, W), solution.value.detach()]


@pytest.mark.parametrize("adjoint", [*ADJOINTS, jiio.Unrolled()], ids=str)
def test_the_gradients_are_those_of_the_whole_batch(adjoint: jiio.AbstractAdjoint) -> None:
    case = mixed()
    options = {"max_steps": 60} if isinstance(adjoint, jiio.Unrolled) else {}
    for old, new in zip(*(gradients(case, divisible, adjoint, **options) for divisible in (False, True)), strict=True):
        assert gap(old, new) < 1e-6 * (1 + float(old.abs().max()))


@pytest.mark.parametrize("solver", [jiio.Anderson(), jiio.Broyden()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("adjoint", [jiio.Implicit(), jiio.SHINE(), jiio.Unrolled(), jiio.Phantom()], ids=str)
def test_equilibria_and_their_gradients(adjoint: jiio.AbstractAdjoint, solver: jiio.AbstractSolver) -> None:
    case = mixed()
    inputs = (torch.randn(32, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)) * 3).requires_grad_()
    found = []
    for divisible in (False, True):
        cell = Counted(case.cell, divisible=divisible)
        start = torch.zeros(32, 10, dtype=DOUBLE)
        start[::2] = jiio.equilibrium(case.cell, inputs[::2].detach(), start[::2], adjoint=jiio.Detached()).z
        solution = jiio.equilibrium(cell, inputs, start, adjoint=adjoint, solver=solver, **OPTIONS)
        slope = torch.autograd.grad(solution.z.square().sum(), inputs)[0]
        found.append((solution.z.detach(), slope, solution.steps, solution.residual, cell.counts[1]))
    *whole, dear = found[0]
    *divided, cheap = found[1]
    assert cheap < dear
    for old, new in zip(whole, divided, strict=True):
        assert gap(old, new) < 1e-7


# -- what is seen on the way


@pytest.mark.parametrize("trace", [True, "points"])
def test_traces_have_all_samples(trace: bool | str) -> None:
    whole, divided = both(mixed(), jiio.L2Ball(0.5), trace=trace)
    assert whole.trace is not None and divided.trace is not None
    for name in ("residual", "value"):
        old, new = getattr(whole.trace, name), getattr(divided.trace, name)
        assert torch.allclose(old, new, rtol=1e-6, atol=1e-9, equal_nan=True), name
    assert len(whole.trace.x) == len(divided.trace.x)
    for name in ("x", "z"):
        for old, new in zip(getattr(whole.trace, name), getattr(divided.trace, name), strict=True):
            assert gap(old, new) < 1e-7


def test_who_watches_sees_all_samples_and_may_end_the_solve() -> None:
    seen: list[list[Tensor]] = []

    def watch(step: int, z: Tensor, x: Tensor, value: Tensor) -> bool:
        seen[-1] += [z.clone(), x.clone(), value.clone()]
        return step == 40

    case, found = mixed(), []
    for divisible in (False, True):
        seen.append([])
        problem = posed(case, divisible=divisible)
        found.append(jiio.solve(problem, case.x0, case.z0, callback=watch, **OPTIONS))
    same(found[0], found[1])
    assert bool((found[1].status == int(Status.STOPPED)).any()) and bool(found[1].converged.any())
    for old, new in zip(*seen, strict=True):
        assert gap(old, new) < 1e-8


def test_lost_samples_leave_as_well() -> None:
    """One sample is NaN from the start, and one has no minimum: both ways they end alike."""
    case = mixed()
    y = case.y.clone()
    y[5] = float("nan")
    whole, divided = both(case.with_(y=y))
    same(whole, divided)
    assert int(divided.status[5]) == int(Status.NONFINITE) and int(divided.converged.sum()) == 31


def test_a_warm_start_ends_a_part_at_once() -> None:
    case = mixed()
    first = jiio.solve(posed(case), case.x0, case.z0, **OPTIONS)
    far = torch.arange(32) % 4 == 0
    x0, z0 = (torch.where(far[:, None], torch.zeros_like(t), t) for t in (first.x, first.z))
    mu = torch.where(far[:, None], torch.zeros_like(first.z), multiplier(first))
    found, prices = [], []
    for divisible in (False, True):
        problem = posed(case, divisible=divisible)
        options = OPTIONS | {"multiplier": mu, "scaling": first.scaling}
        found.append(jiio.solve(problem, x0, z0, **options))
        prices.append(problem.cell.counts[1])  # type: ignore[attr-defined]
    same(found[0], found[1])
    assert prices[1] < 0.5 * prices[0]


def test_in_a_metric() -> None:
    case = make(2, act="tanh", batch=16).with_(y=mixed().y[:16])
    inverse = torch.eye(4, dtype=DOUBLE) * torch.linspace(0.5, 1, 16, dtype=DOUBLE)[:, None, None]
    scaling = (torch.ones(16, 1, dtype=DOUBLE), torch.linspace(1, 2, 16, dtype=DOUBLE)[:, None])
    whole, divided = both(case, metric=jiio.Metric(inverse, scaling))
    same(whole, divided)


# -- the contract of each part


INDEX = torch.tensor([0, 2])


@pytest.mark.parametrize("name", PROX)
def test_a_prox_of_some_samples_is_the_prox_restricted(name: str) -> None:
    prox, x, step = PROX[name](4), torch.randn(3, 4, dtype=DOUBLE), per_sample(0.3, 0.5, 0.7)[:, None]
    bound, few = prox.bind(x), prox.rows(INDEX, x)
    assert few is not None
    for part in (few.bind(x[INDEX]), bound.rows(INDEX, x)):
        assert part is not None
        assert torch.equal(part.apply(x[INDEX], step[INDEX]), bound.apply(x, step)[INDEX])
        assert torch.equal(part.excess(x[INDEX]), bound.excess(x)[INDEX])
        assert torch.equal(part.penalty(x[INDEX]), bound.penalty(x)[INDEX])


def test_a_prox_of_blocks_and_of_trees() -> None:
    x = {"a": torch.randn(3, 2, 2), "b": torch.randn(3, 5)}
    few = {name: leaf[INDEX] for name, leaf in x.items()}
    blocks = jiio.PerBlock(a=jiio.L2Ball(torch.tensor([0.1, 0.2, 0.3]), center=torch.ones(2, 2)), b=jiio.Box(0, 0.1))
    center = {"a": torch.ones(2, 2), "b": torch.randn(3, 5)}
    for prox in (blocks, jiio.L2Ball(1.0, center=center), jiio.Box(x, 9.0)):
        part = prox.rows(INDEX, x)
        assert part is not None
        for name, leaf in prox(x).items():
            assert torch.equal(part(few)[name], leaf[INDEX])


def test_per_sample_hands_its_data_on() -> None:
    y = torch.randn(3, 2)
    objective = jiio.PerSample(lambda z, x, y: (z - y).sum(1), y)
    part = objective.rows(INDEX)
    assert part is not None and torch.equal(part(y[INDEX] + 1, y[INDEX]), objective(y + 1, y)[INDEX])
    assert jiio.PerSample(Counted(torch.add, divisible=False)).rows(INDEX) is None
    layer = torch.nn.Linear(2, 2)
    assert jiio.PerSample(layer).module is layer


@pytest.mark.parametrize(("arguments", "word"), [((3,), "function"), ((torch.add, 3.0), "data")])
def test_bad_parts_are_told(arguments: tuple[Any, ...], word: str) -> None:
    with pytest.raises((jiio.ArgumentTypeError, jiio.ArgumentError), match=word):
        jiio.PerSample(*arguments)


def test_data_of_another_batch_are_told() -> None:
    objective = jiio.PerSample(lambda z, x, y: (z - y).square().sum(1), torch.zeros(3, 2))
    problem = jiio.Problem(lambda z, x: 0.3 * z + x, objective)
    with pytest.raises(jiio.ArgumentError, match=r"PerSample\.data: expected 2 samples, .*\(3, 2\)"):
        jiio.solve(problem, torch.zeros(2, 2), torch.zeros(2, 2))
