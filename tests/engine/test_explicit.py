"""Problems with an explicit state, constraints per block, and callbacks that stop."""

from __future__ import annotations

import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

import jiio
from helpers import gap
from jiio import ArgumentError, Status
from jiio.explicit import Descent, History
from jiio.layout import Spec
from jiio.operators import PackedProblem

DOUBLE = torch.float64
DRAW = torch.Generator().manual_seed(0)
A = torch.randn(8, 4, dtype=DOUBLE, generator=DRAW)
Y = torch.randn(3, 8, dtype=DOUBLE, generator=DRAW)
X = torch.randn(3, 4, dtype=DOUBLE, generator=DRAW)
TIGHT = jiio.Tolerance(1e-9, 1e-9)


def smooth(x: Tensor) -> Tensor:
    return torch.tanh(x @ A.T)


def misfit(z: Tensor, x: Tensor) -> Tensor:
    return (z - Y[: len(z)]).square().sum(1) + 0.1 * x.square().sum(1)


def bottom(prox_bounds: list[tuple[float, float]] | None, start: Tensor, sample: int) -> float:
    def function(u):
        x = torch.from_numpy(u)[None].requires_grad_()
        value = (smooth(x) - Y[sample]).square().sum() + 0.1 * x.square().sum()
        (g,) = torch.autograd.grad(value, x)
        return float(value.detach()), g[0].numpy()

    found = scipy.optimize.minimize(
        function, start.numpy(), jac=True, method="L-BFGS-B", bounds=prox_bounds, options={"ftol": 1e-15, "gtol": 1e-10}
    )
    return float(found.fun)


@pytest.mark.parametrize("bound", [None, 0.3])
def test_the_bottom_of_a_feed_forward_network(bound: float | None) -> None:
    prox = None if bound is None else jiio.Box(-bound, bound)
    solution = jiio.solve(jiio.Problem.explicit(smooth, misfit, prox), X, tolerance=TIGHT)
    assert bool(solution.converged.all())
    for i in range(3):
        best = bottom(None if bound is None else [(-bound, bound)] * 4, X[i].clamp(-(bound or 9), bound or 9), i)
        assert float(solution.value[i]) <= best + 1e-7 * (1 + best)
    assert gap(solution.z, smooth(solution.x)) < 1e-12
    assert gap(solution.value, misfit(solution.z, solution.x)) < 1e-12


@pytest.mark.parametrize(
    "prox", [jiio.L2Ball(0.5), jiio.L1Ball(0.5), jiio.SoftThreshold(0.3), jiio.LinfBall(0.2)], ids=str
)
def test_the_conditions_hold_under_every_prox(prox: jiio.AbstractProx) -> None:
    solution = jiio.solve(jiio.Problem.explicit(smooth, misfit, prox), X, tolerance=TIGHT, max_steps=400)
    assert bool(solution.converged.all())
    x = solution.x.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(misfit(smooth(x), x).sum(), x)
    assert gap(prox(solution.x - 0.1 * g, 0.1), solution.x) < 1e-7
    assert float(prox.violation(solution.x).max()) < 1e-12


def test_a_sample_alone_is_what_it_is_in_company() -> None:
    whole = jiio.solve(jiio.Problem.explicit(smooth, misfit), X, tolerance=TIGHT)
    one = jiio.solve(jiio.Problem.explicit(smooth, misfit), X[:1], tolerance=TIGHT)
    assert int(one.steps[0]) == int(whole.steps[0]) and gap(one.x, whole.x[:1]) < 1e-12


def test_a_history_is_forgotten_for_one_sample_alone() -> None:
    steps, changes, curvature = X[:2], 2 * X[:2], torch.ones(2, 1, dtype=DOUBLE)
    history = History(steps)
    history.add(steps, changes, torch.tensor([True, True]))
    known = history.applied(changes, curvature)
    assert gap(known, steps) < 1e-12  # the secant equation: the inverse Hessian takes a change back to its step
    history.forget(torch.tensor([True, False]))
    assert gap(history.applied(changes, curvature), torch.stack([changes[0], known[1]])) < 1e-12


def test_a_short_step_says_nothing_of_the_unit() -> None:
    """Across a kink a short step sees any curvature; residuals stay in that of the last long one."""
    problem = jiio.Problem.explicit(lambda x: x, lambda z, x: z.square().sum(1))
    packed = PackedProblem(problem, Spec.of(X), Spec.of(X), 3, False)
    run = Descent(packed, problem.prox.bind(X), X, TIGHT)
    stiff = torch.full((3, 1), 1e9, dtype=DOUBLE)
    run.curvature = run.unit = stiff
    run.step()
    assert gap(run.curvature, torch.full((3, 1), 2.0, dtype=DOUBLE)) < 1e-5 and torch.equal(run.unit, stiff)
    run.step()
    assert gap(run.unit, torch.full((3, 1), 2.0, dtype=DOUBLE)) < 1e-5


def test_calls_are_counted_and_kinks_have_a_word() -> None:
    calls = [0]

    def counted(x: Tensor) -> Tensor:
        calls[0] += 1
        return x.abs()

    # |x| has a kink at the bottom, and the gradient there does not vanish from either side.
    problem = jiio.Problem.explicit(counted, lambda z, x: z.sum(1) + (x - 0.3).square().sum(1))
    solution = jiio.solve(problem, X, adjoint=jiio.Detached(), on_failure="ignore", max_steps=300)
    assert solution.evaluations.cell == calls[0]
    assert set(solution.status.tolist()) <= {Status.KINK, Status.CONVERGED} and Status.KINK in solution.status
    assert float(solution.value.max()) < 1.1 * 4 * 0.3**2  # at x = 0, where all four kinks meet
    assert calls[0] < 300 and "kink" in Status.KINK.words


def test_the_exact_gradient_goes_through_it() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 8).double()

    def loss() -> Tensor:
        problem = jiio.Problem.explicit(lambda x: torch.tanh(net(x)), misfit)
        solution = jiio.solve(
            problem, X, adjoint=jiio.KKT(rtol=1e-12, max_steps=500), tolerance=jiio.Tolerance(1e-11, 1e-11)
        )
        return (solution.x * A[:4, :4].sum(1)).sum()

    loss().backward()
    d, h = torch.randn(8, 4, dtype=DOUBLE, generator=DRAW), 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            net.weight.add_(sign * h * d)
            ends.append(float(loss()))
            net.weight.sub_(sign * h * d)
    assert net.weight.grad is not None
    want = (ends[0] - ends[1]) / (2 * h)
    assert abs(float((net.weight.grad * d).sum()) - want) < 1e-4 * (1 + abs(want))


@pytest.mark.parametrize("answer", [lambda x: None, lambda x: x[:1], lambda x: x.long()])
def test_what_is_no_state_is_refused(answer) -> None:
    with pytest.raises(jiio.JiioError, match=r"function\(x\): expected"):
        jiio.solve(jiio.Problem.explicit(answer, misfit), X)


def test_what_it_has_no_use_for_is_refused() -> None:
    problem = jiio.Problem.explicit(smooth, misfit)
    for options in ({"z0": Y}, {"rule": jiio.AdamStep()}, {"solver": jiio.Picard()}, {"multiplier": Y}):
        with pytest.raises(ArgumentError, match=f"{next(iter(options))}: .*L-BFGS"):
            jiio.solve(problem, X, **options)  # type: ignore[arg-type]


def cell(z: Tensor, x: dict[str, Tensor]) -> Tensor:
    return 0.5 * torch.tanh(z) + x["gain"] * x["code"] @ A.T


def test_a_block_without_a_prox_is_free() -> None:
    x = {"gain": torch.full((2, 1), 2.0, dtype=DOUBLE), "code": torch.full((2, 4), 5.0, dtype=DOUBLE)}
    near = jiio.PerBlock(gain=jiio.Box(0.0, 1.0))(x)
    assert float(near["gain"].max()) == 1.0 and torch.equal(near["code"], x["code"])


def test_a_constraint_for_each_block() -> None:
    """By name, by position, with priors; as a joint solve, as an explicit one, and against one block alone."""
    x0 = {"gain": torch.full((3, 1), 2.0, dtype=DOUBLE), "code": X}
    prox = jiio.PerBlock(gain=jiio.Box(0.0, 1.0), code=jiio.L2Ball(0.4))
    problem = jiio.Problem(cell, lambda z, x: (z - Y).square().sum(1), prox)
    solution = jiio.solve(problem, x0, torch.zeros(3, 8, dtype=DOUBLE), max_steps=400)
    assert bool((solution.x["gain"] >= 0).all() & (solution.x["gain"] <= 1).all())
    assert float(solution.x["code"].norm(dim=1).max()) <= 0.4 + 1e-9

    fixed = jiio.Problem.explicit(
        lambda x: smooth(x[0]) + 0 * x[1], lambda z, x: misfit(z, x[0]) + x[1].square().sum(1)
    )
    for outer in (jiio.PerBlock(jiio.Box(-0.3, 0.3)), jiio.PerBlock(jiio.Box(-0.3, 0.3), jiio.SoftThreshold(0.1))):
        both = jiio.solve(jiio.Problem(fixed.cell, fixed.objective, outer), (X, Y[:, :1]), tolerance=TIGHT)
        alone = jiio.solve(jiio.Problem.explicit(smooth, misfit, jiio.Box(-0.3, 0.3)), X, tolerance=TIGHT)
        assert gap(both.x[0], alone.x) < 1e-5 and float(both.x[1].abs().max()) < 1e-5

    with pytest.raises(ArgumentError, match="the blocks of x"):
        jiio.PerBlock(other=jiio.Box(0, 1))(x0)
    with pytest.raises(ArgumentError, match="PerBlock"):
        jiio.PerBlock(jiio.Box(0, 1))(X)


def test_its_active_set_is_that_of_the_blocks() -> None:
    x = (X[:, :2], X[:, 2:] / X[:, 2:].norm(dim=1, keepdim=True))
    prox = jiio.PerBlock(jiio.QuadraticPrior(0.5), jiio.L2Ball(1.0))
    flat = torch.cat(x, dim=1)
    active = prox.bind(x).active(flat, -flat)
    alone = jiio.L2Ball(1.0).active(x[1], -x[1])
    w = torch.randn(3, 4, dtype=DOUBLE, generator=DRAW)
    assert gap(active.project(w)[:, 2:], alone.project(w[:, 2:])) < 1e-12
    assert gap(active.project(w)[:, :2], w[:, :2]) == 0
    assert (
        gap(active.curvature(-flat)[:, :2], torch.full((3, 2), 0.5, dtype=DOUBLE) + active.curvature(-flat)[:, 2:3] * 0)
        < 2
    )


@pytest.mark.parametrize("explicit", [False, True])
def test_a_callback_may_stop(explicit: bool) -> None:
    seen: list[int] = []

    def callback(step: int, z: Tensor, x: Tensor, value: Tensor) -> bool:
        assert z.shape == (3, 8) and x.shape == (3, 4) and value.shape == (3,)
        seen.append(step)
        return step == 3

    joint = jiio.Problem(lambda z, x: 0.5 * torch.tanh(z) + x @ A.T, misfit)
    problem = jiio.Problem.explicit(smooth, misfit) if explicit else joint
    z0 = None if explicit else torch.zeros(3, 8, dtype=DOUBLE)
    solution = jiio.solve(problem, X, z0, callback=callback, on_failure="ignore", tolerance=TIGHT)
    assert seen == [0, 1, 2, 3]
    assert solution.status.tolist() == [Status.STOPPED] * 3
