"""Recorded steps: the same solve as eager; nothing that looks at numbers, nothing stale, nothing kept alive."""

from __future__ import annotations

import dataclasses
import gc
import random
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import gap
from jiio.recording import TracedRecorder, UnrecordableError, forget_records, recorded_steps, store
from jiio.recording.parts import Ingredients
from jiio.recording.run import AGAIN
from jiio.recording.store import STORE
from problems import CLOSE, DOUBLE, make

CASE = make(0, batch=3)


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    forget_records()
    yield
    forget_records()


# Every part that a step is made of, on a problem whose answer Newton's method knows.
STEPS: dict[str, dict[str, Any]] = {
    "free": {},
    "ball": {"prox": jiio.L2Ball(0.3)},
    "box, radii in a tensor": {"prox": jiio.PerBlock(a=jiio.Box(-0.1, 0.1))},
    "L1, schedule": {"prox": jiio.L1Ball(0.3), "rule": jiio.GradientStep(lambda k: 0.5 if k < 6 else 0.3)},
    "sparse, Anderson I": {"prox": jiio.SoftThreshold(0.05), "solver": jiio.Anderson(kind="I", damping=0.9)},
    "prior, Broyden": {"prox": jiio.QuadraticPrior(0.1), "solver": jiio.Broyden(memory=6)},
    "momentum, some blocks": {"rule": jiio.MomentumStep(), "solver": jiio.Anderson(blocks=("z", "mu"))},
}


def solved(name: str) -> jiio.Solution:
    """With few steps, so that some samples end and others run out of them; x is a dict where blocks have names."""
    settings: dict[str, Any] = {"tolerance": CLOSE, "max_steps": 24, "on_failure": "ignore"} | STEPS[name]
    prox = settings.pop("prox", None)
    if not isinstance(prox, jiio.PerBlock):
        return CASE.solve(prox, **settings)
    problem = jiio.Problem(lambda z, x: CASE.cell(z, x["a"]), lambda z, x: CASE.objective(z, x["a"]), prox)
    return jiio.solve(problem, {"a": CASE.x0}, CASE.z0, **settings)


def packed(solution: jiio.Solution) -> Tensor:
    x = solution.x["a"] if isinstance(solution.x, dict) else solution.x
    assert solution.multiplier is not None and solution.gradient is not None
    return torch.cat([solution.z, solution.multiplier, x, solution.gradient, solution.residual], dim=1)


@pytest.mark.parametrize("name", STEPS)
def test_a_recorded_solve_is_the_eager_one(name: str) -> None:
    eager = solved(name)
    with recorded_steps():
        first = solved(name)
        (record,) = STORE.records.values()
        again = solved(name)
    assert record.used == 2 and not STORE.refused
    for found in (first, again):
        assert torch.equal(found.status, eager.status) and torch.equal(found.steps, eager.steps)
        assert found.evaluations == eager.evaluations
        assert gap(packed(found), packed(eager)) < 1e-9
        assert gap(found.value, eager.value) < 1e-12


def test_a_point_on_a_slope_goes_on_as_it_does_eagerly() -> None:
    """A cell in saturation, where the first claim of convergence is refused and the units change within the solve."""

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(3.0 * x)

    problem = jiio.Problem(cell, lambda z, x: (z + 0.5).square().sum(1))
    x0, z0 = torch.full((2, 1), 2.0, dtype=DOUBLE), torch.zeros(2, 1, dtype=DOUBLE)
    how: dict[str, Any] = {"on_failure": "ignore", "max_steps": 60}
    eager = jiio.solve(problem, x0, z0, **how)
    with recorded_steps():
        found = jiio.solve(problem, x0, z0, **how)
    assert STORE.records and torch.equal(eager.steps, found.steps) and gap(eager.x, found.x) < 1e-9
    assert gap(eager.scaling[0], found.scaling[0]) < 1e-9  # type: ignore[index]


def model_of(**options: Any) -> jiio.models.EquilibriumModel:
    torch.manual_seed(0)
    cell = jiio.models.DenseConfig(6, **options)
    return jiio.models.classifier(cell, image=(1, 2, 2), classes=3).eval()


X = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def attacked(model: jiio.models.EquilibriumModel, target: Tensor, radius: float = 0.3) -> jiio.Solution:
    def loss(scores: Tensor, x: Any) -> Tensor:
        return (scores - target).square().sum(1)

    problem = model.problem(loss, jiio.L2Ball(radius, center=X))
    return jiio.solve(problem, X, adjoint=jiio.Detached(), max_steps=40, on_failure="ignore")


def test_new_targets_and_trained_weights_need_no_new_record() -> None:
    """What an adversarial training does: another closure, other targets, weights that an optimiser has moved."""
    model = model_of(scaling="weight")
    for step in range(4):
        target = torch.full((4, 3), 0.3 * step)
        with recorded_steps():
            found = attacked(model, target)
        assert gap(found.x, attacked(model, target).x) < 1e-5
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.9)
    (record,) = STORE.records.values()
    assert record.used == 4


def retyped(model: Any) -> None:
    model.cell.weight = nn.Parameter(0.5 * model.cell.weight.detach())


CHANGES: dict[str, Callable[[Any], object]] = {
    "a parameter replaced": retyped,
    "other memory behind a parameter": lambda m: setattr(m.cell.weight, "data", 0.5 * m.cell.weight.data),
    "another mode": lambda m: m.train(),
    "another head": lambda m: setattr(m, "head", nn.Sequential(m.head, nn.Tanh())),
    "another activation": lambda m: setattr(m.cell, "act", torch.sin),
}


def counting(solve: Callable[[], object]) -> int:
    """How many kinds of solves are known after one more, with nothing recorded."""
    with recorded_steps("auto", recorder=TracedRecorder()):
        solve()
    assert not STORE.records and not STORE.refused
    return len(STORE.seen)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_is_another(name: str) -> None:
    model = model_of()
    assert [counting(lambda: attacked(model, torch.ones(4, 3))) for _ in range(2)] == [1, 1]
    CHANGES[name](model)
    assert counting(lambda: attacked(model, torch.ones(4, 3))) == 2


def test_a_changed_model_is_recorded_anew() -> None:
    model, target = model_of(), torch.ones(4, 3)
    with recorded_steps():
        attacked(model, target)
        retyped(model)
        found = attacked(model, target)
    assert len(STORE.records) == 2 and gap(found.x, attacked(model, target).x) < 1e-5


def test_other_shapes_numbers_and_sets_are_others() -> None:
    model = model_of()
    scale = 1.0

    def solve(batch: int, prox: jiio.AbstractProx, **settings: Any) -> jiio.Solution:
        def loss(scores: Tensor, x: Any) -> Tensor:
            return (scores - scale).square().sum(1)

        return jiio.solve(model.problem(loss, prox), X[:batch], max_steps=12, on_failure="ignore", **settings)

    ball = jiio.L2Ball(0.3)
    assert counting(lambda: solve(4, ball)) == 1
    assert counting(lambda: solve(2, ball)) == 2
    assert counting(lambda: solve(4, jiio.L2Ball(0.2))) == 3
    assert counting(lambda: solve(4, jiio.LinfBall(0.3))) == 4
    assert counting(lambda: solve(4, ball, solver=jiio.Anderson(memory=4))) == 5
    assert counting(lambda: solve(4, ball, rule=jiio.GradientStep(0.3))) == 6
    assert counting(lambda: solve(4, ball, tolerance=jiio.Tolerance(1e-3, 1e-3))) == 7
    scale = 2.0
    assert counting(lambda: solve(4, ball)) == 8
    with torch.autocast("cpu", torch.bfloat16):
        assert counting(lambda: solve(4, ball)) == 9  # the first stage; the second is in full precision again


class Branching(nn.Module):
    """A cell that decides by its numbers."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + (x if float(z.detach().abs().sum()) > 1e9 else 0.5 * x)


class Drawing(nn.Module):
    """A cell with a number of Python's own random source; a fault in any solve, and in a record an unseen one."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + (1 + 1e-2 * random.random()) * x


class Counting(nn.Module):
    """A cell that counts its calls."""

    calls = 0

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return 0.5 * torch.tanh(z) + x


class Reading(nn.Module):
    """A cell that takes its numbers out of torch, where no tracer sees them."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + x + 0.1 * sum(z.detach().flatten().tolist())


def hooked() -> nn.Module:
    made = nn.Sequential(nn.Tanh())
    made.register_forward_hook(lambda *_: None)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = made

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.5 * self.inner(z) + x

    return Outer()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a branch": (Branching, "looks at the numbers"),
    "randomness of Python": (Drawing, "differed from the eager step"),
    "a count of calls": (Counting, "changes something of its own"),
    "numbers read behind torch's back": (Reading, "differed from the eager step|cannot follow"),
    "hooks": (hooked, "hooks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded_runs_eagerly(name: str) -> None:
    cell = REFUSED[name][0]()
    x, z = torch.full((2, 3), 0.4, dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE)

    def run() -> jiio.Solution:
        random.seed(0)
        return jiio.equilibrium(cell, x, z, max_steps=12, on_failure="ignore", adjoint=jiio.Detached())

    eager = run()
    with recorded_steps():
        found = run()
        assert not STORE.records
        if STORE.refused:
            (why,) = STORE.refused.values()
            assert re.search(REFUSED[name][1], why)
    if name != "randomness of Python":
        assert gap(found.z, eager.z) < 1e-12
    assert bool(torch.isfinite(found.z).all())


def test_a_record_that_has_gone_stale_is_noticed_and_dropped() -> None:
    """A number in a list that a global names is not in the key; the spot check sees it."""

    def run() -> jiio.Solution:
        return jiio.equilibrium(_by_a_global, X.flatten(1), torch.zeros(4, 4), adjoint=jiio.Detached())

    _GLOBAL.slope = 0.5
    with recorded_steps():
        run()
        _GLOBAL.slope = 0.2
        (record,) = STORE.records.values()
        record.used = AGAIN - 1
        found = run()
        assert not STORE.records and len(STORE.refused) == 1
    assert gap(found.z, run().z) < 1e-6


class _Numbers:
    slope = 0.5


_GLOBAL = _Numbers()


def _by_a_global(z: Tensor, x: Tensor) -> Tensor:
    return _GLOBAL.slope * torch.tanh(z) + x


def test_records_are_few_and_go_with_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEPT", 2)
    model = model_of()
    gone = weakref.ref(model)
    with recorded_steps():
        for batch in range(1, 4):
            model.solve(torch.rand(batch, 1, 2, 2), max_steps=4, on_failure="ignore", adjoint=jiio.Detached())
        assert len(STORE.records) == 2
    del model
    gc.collect()
    assert gone() is None and not STORE.records and not STORE.seen


def test_a_solve_within_a_solve_is_left_alone() -> None:
    inner = model_of()

    def loss(scores: Tensor, x: Any) -> Tensor:
        with torch.no_grad():
            offset = inner(X[: len(x)])
        return (scores - offset).square().sum(1)

    outer = model_of()
    with recorded_steps():
        found = jiio.solve(outer.problem(loss), X, max_steps=6, on_failure="ignore")
    assert gap(found.x, jiio.solve(outer.problem(loss), X, max_steps=6, on_failure="ignore").x) < 1e-5


def test_who_watches_or_tapes_a_solve_has_it_eager() -> None:
    seen: list[int] = []
    problem = CASE.problem()
    how: dict[str, Any] = {"max_steps": 8, "on_failure": "ignore"}
    with recorded_steps():
        jiio.solve(problem, CASE.x0, CASE.z0, callback=lambda k, *_: seen.append(k), **how)
        traced = jiio.solve(problem, CASE.x0, CASE.z0, trace=True, **how)
        jiio.solve(problem, CASE.x0.clone().requires_grad_(), CASE.z0, adjoint=jiio.Unrolled(), **how)
    assert not STORE.records and seen == list(range(8)) and traced.trace is not None


def test_a_cpu_records_by_request_alone() -> None:
    CASE.solve(max_steps=8, on_failure="ignore")
    with recorded_steps("auto"):
        CASE.solve(max_steps=8, on_failure="ignore")
    assert not STORE.records and not STORE.seen
    with recorded_steps("auto", recorder=TracedRecorder()):
        for _ in range(3):
            assert not STORE.records
            CASE.solve(max_steps=8, on_failure="ignore")
    assert len(STORE.records) == 1


def test_a_closure_in_parts() -> None:
    """Equal keys where the tensors' numbers alone are others; the copy computes with what it is given."""

    def made(target: Tensor, factor: float) -> Callable[[Tensor], Tensor]:
        held = {"target": target, "more": [target, dataclasses.make_dataclass("Part", ["y"])(2.0)]}
        return lambda z: factor * (z - held["target"]).square()

    one, other = Ingredients(made(torch.zeros(2), 2.0)), Ingredients(made(torch.ones(3), 2.0))
    assert len(one.tensors) == 1 and one.key != other.key
    assert Ingredients(made(torch.ones(2), 2.0)).key != Ingredients(made(torch.ones(2), 3.0)).key
    (copy,) = one.rebuilt([torch.ones(2)])
    assert torch.equal(copy(torch.ones(2)), torch.zeros(2))
    for odd in (torch.Generator(), iter([1]), torch.zeros(2).to_sparse()):
        with pytest.raises(UnrecordableError, match="closure over a"):
            Ingredients(lambda z, odd=odd: odd)


def test_constants_are_computed_once_a_solve() -> None:
    """The square of a weight leaves the step; its replay has one operation less, and follows the weight."""
    weight = torch.full((3,), 0.5)

    def step(state: Any, constants: Any) -> list[Tensor]:
        scratch = torch.zeros_like(constants[0])
        scratch.add_(state[0])  # written to: it is no constant although nothing but a constant made it
        return [state[0] * constants[0].square() + scratch]

    replay = TracedRecorder().record(step, [torch.ones(3)], [weight])
    for value in (0.5, 2.0):
        replay.constants[0].fill_(value)
        replay.state[0].fill_(1.0)
        replay.begin()
        for _ in range(2):
            replay()
        assert torch.allclose(replay.state[0], torch.full((3,), (value**2 + 1) ** 2))
    assert [n.name for n in replay.before.graph.nodes if n.op == "call_function"] != []  # type: ignore[attr-defined]
    assert torch.equal(weight, torch.full((3,), 0.5))


@pytest.mark.cuda
def test_a_step_is_one_launch_on_a_gpu() -> None:
    """Where it is asked for, from the third solve of equal shapes; the iterates are those of the eager one."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = model_of().cuda()
    x = X.cuda()

    def solve(target: float) -> jiio.Solution:
        problem = model.problem(lambda s, _: (s - target).square().sum(1), jiio.L2Ball(0.3, center=x))
        return jiio.solve(problem, x, adjoint=jiio.Detached(), max_steps=40, on_failure="ignore")

    for i in range(6):
        with recorded_steps("auto"):
            found = solve(0.1 * i)
        eager = solve(0.1 * i)
        assert gap(found.x.cpu(), eager.x.cpu()) < 1e-4
    (record,) = STORE.records.values()
    assert record.used == 4
