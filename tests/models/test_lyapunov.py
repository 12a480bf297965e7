"""LyaDEQ: the convex potential, the projected field, the stable cell and the orthogonal last layer."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import jiio
from jiio.attacks import PGD, IntermediateAttack, JointAttack, Target, ThreatModel
from jiio.layout import Spec
from jiio.models import (
    ClassifierHead,
    ConvCell,
    ConvexPotential,
    DenseCell,
    DenseConfig,
    LyapunovCell,
    LyapunovFlow,
    MultiscaleCell,
    MultiscaleConfig,
    classifier,
    lyapunov_model,
    orthogonal_head,
    project_field,
)

N = 8
TIGHT = {
    "tolerance": jiio.Tolerance(1e-12, 1e-11),
    "adjoint": jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12)),
    "max_steps": 400,
    "on_failure": "ignore",
}


def potential(seed: int, size: int = N) -> Any:
    torch.manual_seed(seed)
    return ConvexPotential(size, widths=(7, 5)).double()


def cell(gain: float = 0.8, alpha: float = 0.1, seed: int = 0, activation: str = "tanh") -> Any:
    torch.manual_seed(seed)
    inner = DenseCell(N, gain=gain, activation=activation).double()
    return LyapunovCell(inner, ConvexPotential(N, widths=(7, 5)).double(), alpha=alpha)


def states(count: int, scale: float = 2.0, seed: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    z, u = torch.randn(2, count, N, generator=draw, dtype=torch.float64)
    return scale * z, u


# -- the potential


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.1, 30.0))
def test_the_potential_is_convex_along_segments(seed, share, scale):
    v = potential(seed % 7)
    draw = torch.Generator().manual_seed(seed)
    a, b = scale * torch.randn(2, 16, N, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        chord = share * v(a) + (1 - share) * v(b)
        assert bool((v(share * a + (1 - share) * b) <= chord + 1e-9 * (1 + chord)).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e3))
def test_the_potential_lies_above_its_floor_and_vanishes_at_the_origin_alone(seed, scale):
    v = potential(seed % 7)
    r = scale * torch.randn(16, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        value, slope = v.with_slope(torch.cat((r, torch.zeros(1, N, dtype=torch.float64))))
    assert float(value[-1]) < 1e-28 and float(slope[-1].abs().max()) < 1e-14
    assert bool((value[:-1] >= v.floor * r.square().sum(1)).all())
    assert bool(((r * slope[:-1]).sum(1) > 0).all())  # convex with its minimum at 0: no other stationary point


def test_the_slope_by_hand_is_that_of_autograd_and_of_finite_differences():
    v, (r, direction) = potential(1), states(6)
    r.requires_grad_()
    value, slope = v.with_slope(r)
    (automatic,) = torch.autograd.grad(value.sum(), r)
    torch.testing.assert_close(slope, automatic)
    with torch.no_grad():
        difference = (v(r + 1e-6 * direction) - v(r - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close(difference, (slope * direction).sum(1), rtol=1e-6, atol=1e-8)
        alone, by_hand = v.with_slope(r)  # without grad mode
    torch.testing.assert_close(by_hand, automatic)
    torch.testing.assert_close(alone, value.detach())


def test_one_hidden_layer_has_the_value_of_the_formula():
    torch.manual_seed(0)
    v = ConvexPotential(3, widths=(4,), floor=0.5, smoothing=2.0).double()
    r = torch.randn(5, 3, dtype=torch.float64)
    layers: Any = v.inner
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in layers)

    def ramp(y):
        return torch.where(y < 0, 0 * y, torch.where(y < 2, y.square() / 4, y - 1))

    def q(x):
        return x @ w2.t() + b2 + ramp(x @ w1.t() + b1) @ F.softplus(v.outer[0]).t() / 4

    expected = ramp(q(r) - q(torch.zeros(1, 3, dtype=torch.float64)))[:, 0] + 0.5 * r.square().sum(1)
    torch.testing.assert_close(v(r), expected)


# -- the projection


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 2.0))
def test_the_projected_field_is_the_nearest_that_falls_fast_enough(seed, alpha):
    draw = torch.Generator().manual_seed(seed)
    field, gradient, other = torch.randn(3, 12, N, generator=draw, dtype=torch.float64)
    value = torch.rand(12, generator=draw, dtype=torch.float64)
    g = project_field(field, value, gradient, alpha=alpha)
    fall = (gradient * g).sum(1)
    assert bool((fall <= -alpha * value + 1e-12).all())
    enough = (gradient * field).sum(1) <= -alpha * value
    assert torch.equal(g[enough], field[enough])
    torch.testing.assert_close(fall[~enough], -alpha * value[~enough])
    # Any other field of the half space is at least as far: moved into it along the gradient.
    square = gradient.square().sum(1)
    excess = F.relu((gradient * other).sum(1) + alpha * value) / square
    allowed = other - excess[:, None] * gradient
    assert bool(((g - field).norm(dim=1) <= (allowed - field).norm(dim=1) + 1e-12).all())


def test_nothing_is_corrected_and_nothing_breaks_where_the_gradient_vanishes():
    field = torch.zeros(2, N, dtype=torch.float64, requires_grad=True)
    value, slope = potential(0).with_slope(field)
    out = project_field(field, value, slope, alpha=1.0)
    assert float(out.detach().abs().max()) == 0.0
    (gradient,) = torch.autograd.grad(out.sum(), field)
    assert bool(torch.isfinite(gradient).all())


# -- the cell


def small_states(count: int) -> tuple[Tensor, Tensor]:
    """Near the origin, where a tanh cell of large gain pushes outward."""
    z, u = states(count, 0.3)
    return z, 0.1 * u


@pytest.mark.parametrize("gain", [0.8, 6.0])
def test_dynamics_fall_where_they_are_evaluated(gain):
    """<grad V, g> <= -alpha V, with grad V by a second route: autograd through V as a function of z."""
    stable = cell(gain)
    z, u = small_states(64)
    z.requires_grad_()
    value = stable.potential(stable.cell(z, u) - z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    with torch.no_grad():
        g = stable(z, u) - z  # step 1
        assert bool(((gradient * g).sum(1) <= -stable.alpha * value + 1e-10 * value).all())
        corrected = ((g - (stable.cell(z, u) - z)).norm(dim=1) > 1e-9).double().mean()
    assert (float(corrected) > 0.05) == (gain > 1.0)  # a contraction needs no help, the other one gets some


@pytest.mark.parametrize(("gain", "halvings"), [(0.8, 0), (1.2, 6)])
def test_trajectories_fall_and_end_at_the_equilibrium(gain, halvings):
    """Acceptance 7 in small; benchmarks.attacks.lyapunov_trajectories has it on trained models."""
    stable = cell(gain)
    z, u = states(60, scale=3.0)
    end, values, sizes = stable.trajectory(z, u, steps=300, length=0.2, halvings=halvings)
    known = sizes[:-1] > 1e-9
    assert not bool((values[1:] > values[:-1])[known].any())
    taken = (values[1:] < values[:-1])[known].double().mean()
    assert float(taken) == 1.0 if halvings == 0 else float(taken) > 0.95
    assert float(sizes[-1].max()) < 1e-4
    exact = jiio.equilibrium(stable.cell, u, adjoint=jiio.Detached(), tolerance=jiio.Tolerance(1e-12, 1e-12)).z
    assert float((end - exact).norm(dim=1).max()) < 1e-2
    # What the flow promises is a bound in continuous time; half of the rate leaves room for the steps.
    time = 0.2 * 300
    bound = (values[0] / stable.potential.floor).sqrt() * math.exp(-stable.alpha * time / 4)
    assert bool((sizes[-1] <= bound).all())


def test_without_the_projection_v_would_rise():
    """The tests above can fail: along the bare field of an expanding cell V rises."""
    stable = cell(6.0)
    z, u = small_states(64)
    with torch.no_grad():
        field, value, gradient = stable.parts(z, u)
        assert bool(((gradient * field).sum(1) > 0).any())
        assert bool(((gradient * project_field(field, value, gradient, alpha=0.1)).sum(1) < 0).all())


def test_equilibria_are_those_of_the_cell_and_so_are_their_gradients():
    """The projection moves no equilibrium, and the implicit gradient through it is that of the cell, kink or not."""
    for gain, alpha in ((0.8, 0.1), (0.9, 1.5)):
        stable = cell(gain, alpha)
        u = states(10)[1]
        found = []
        for f in (stable, stable.cell):
            leaf = u.clone().requires_grad_()
            solution = jiio.equilibrium(f, leaf, **TIGHT)  # type: ignore[arg-type]
            assert bool(solution.converged.all())
            (gradient,) = torch.autograd.grad(solution.z.square().sum(), leaf)
            found.append((solution.z.detach(), gradient))
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-9)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-8)


def test_the_gradient_of_one_application_agrees_with_finite_differences():
    stable = cell(6.0, activation="softplus")
    z, u = small_states(6)
    direction = states(6, 1.0, seed=9)
    z.requires_grad_()
    u.requires_grad_()
    weight = torch.randn(6, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.autograd.grad((stable(z, u) * weight).sum(), [z, u])
    with torch.no_grad():
        for gradient, dz, du in ((found[0], direction[0], 0.0), (found[1], 0.0, direction[1])):
            ahead, back = (stable(z + s * 1e-6 * dz, u + s * 1e-6 * du) for s in (1.0, -1.0))
            expected = ((ahead - back) * weight).sum(1) / 2e-6
            moved = dz if isinstance(dz, Tensor) else du
            torch.testing.assert_close((gradient * moved).sum(1), expected, rtol=1e-5, atol=1e-7)


def test_gradients_of_the_parameters_agree_between_implicit_and_unrolled():
    stable = cell(0.9, alpha=1.5)
    u = states(8)[1]
    grads = []
    for adjoint in (TIGHT["adjoint"], jiio.Unrolled()):
        options = TIGHT | {"adjoint": adjoint, "solver": jiio.Picard(), "max_steps": 400}
        z = jiio.equilibrium(stable, u, **options).z  # type: ignore[arg-type]
        grads.append(torch.autograd.grad(z.square().sum(), list(stable.cell.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_violation_is_zero_exactly_where_nothing_is_corrected():
    calm, wild = cell(0.5), cell(6.0)
    z, u = small_states(64)
    assert float(calm.violation(z, u).detach().max()) == 0.0
    told = wild.violation(z, u)
    assert 0.1 < float(told.detach().max()) <= 1.0 + 1e-9
    torch.autograd.grad(told.mean(), list(wild.parameters()))  # reaches every parameter, potential included


@pytest.mark.parametrize("kind", ["conv", "multiscale"])
def test_states_of_feature_maps(kind):
    torch.manual_seed(0)
    if kind == "conv":
        inner, u = ConvCell(4, groups=2), torch.randn(2, 4, 4, 4)
    else:
        config = MultiscaleConfig(channels=(4, 4), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2))
        inner, u = MultiscaleCell(config), torch.randn(2, 4, 4, 4)
    spec = Spec.of(inner.initial_state(u))
    stable = LyapunovCell(inner, ConvexPotential(spec.size, widths=(5,)))
    z = spec.unpack(torch.randn(2, spec.size))
    with torch.no_grad():
        image = stable(z, u)
        _, value, gradient = stable.parts(z, u)
    moved = spec.pack(image) - spec.pack(z)
    assert bool(((gradient * moved).sum(1) <= -stable.alpha * value + 1e-4 * gradient.norm(dim=1)).all())


# -- models


@functools.cache
def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (60,), generator=draw)
    x = (0.4 + 0.1 * torch.randn(60, 1, 4, 4, generator=draw)).clamp(0, 1)
    x[torch.arange(60), 0, y] += 0.3
    return x.clamp(0, 1), y


@functools.cache
def trained() -> Any:
    torch.manual_seed(0)
    config = DenseConfig(N, scaling="spectral", gain=0.6)
    options: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-5, 1e-4), "solver": jiio.Picard()}
    plain = classifier(config, image=(1, 4, 4), classes=3, **options)
    model: Any = lyapunov_model(plain, torch.zeros(1, 1, 4, 4))
    x, y = data()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        z = model.solve(x).z
        loss = F.cross_entropy(model.head(z), y)
        away = z.detach() + torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
        (loss + 0.1 * model.cell.violation(away, model.inject(x)).mean()).backward()
        optimiser.step()
    return model.eval()


def test_the_last_layer_is_orthogonal_after_training():
    weight = trained().head.linear.weight.detach()
    assert float((weight @ weight.t() - torch.eye(3)).abs().max()) < 1e-5
    torch.manual_seed(0)
    wide = orthogonal_head(ClassifierHead(2, 5)).linear.weight.detach()  # more classes than features: columns
    assert float((wide.t() @ wide - torch.eye(2)).abs().max()) < 1e-5


def test_the_stable_model_learns_and_attacks_work_on_it_unchanged():
    model, (x, y) = trained(), data()
    threat = ThreatModel("l2", 0.4)
    clean = Target(model).predict(x)
    assert bool(clean.converged.all())
    assert float((clean.label == y).float().mean()) > 0.9
    for attack in (PGD(steps=5), JointAttack(), IntermediateAttack(states=(1, 3), unrolled=(1,), steps=5)):
        result = attack(model, x, y, threat)
        assert bool(result.success.any()), attack.name
        assert bool((result.distance <= 0.4 + 1e-5).all())


def test_the_twin_shares_weights_and_settings():
    plain = classifier(DenseConfig(4), image=(6,), classes=2, max_steps=33, solver=jiio.Picard()).eval()
    twin = lyapunov_model(plain, torch.zeros(1, 6), widths=(3,), alpha=0.5, step=0.25)
    assert isinstance(twin.cell, LyapunovCell)
    assert twin.cell.cell is plain.cell and twin.inject is plain.inject
    assert (twin.max_steps, twin.training, twin.cell.alpha, twin.cell.step) == (33, False, 0.5, 0.25)
    assert isinstance(twin.solver, jiio.Picard)
    assert twin.cell.lipschitz == plain.cell.lipschitz


def test_the_flow_on_features_falls_and_has_the_right_gradient():
    torch.manual_seed(0)
    flow = LyapunovFlow(N, widths=(6,), alpha=0.3, steps=4, step=1e-3).double()
    z = states(20)[0].requires_grad_()
    out = flow(z)
    with torch.no_grad():
        before, after = flow.potential(z), flow.potential(out)
        assert bool((after <= before * (1 - 0.9 * 0.3 * 4e-3)).all())
    flow.step = 0.2
    direction = states(20, seed=5)[1]
    (gradient,) = torch.autograd.grad(flow(z).square().sum(), z)
    with torch.no_grad():
        ahead, back = (flow(z + s * 1e-6 * direction).square().sum(1) for s in (1.0, -1.0))
    torch.testing.assert_close((ahead - back) / 2e-6, (gradient * direction).sum(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConvexPotential(0), "size"),
        (lambda: ConvexPotential(3, widths=()), "widths"),
        (lambda: ConvexPotential(3, floor=0.0), "floor"),
        (lambda: LyapunovCell(nn.Linear(2, 2), ConvexPotential(2)), "cell"),  # type: ignore[arg-type]
        (lambda: LyapunovCell(DenseCell(2), ConvexPotential(2), alpha=-1.0), "alpha"),
        (lambda: LyapunovCell(DenseCell(2), ConvexPotential(2), step=0.0), "step"),
        (lambda: LyapunovFlow(2, steps=0), "steps"),
        (lambda: orthogonal_head(nn.Linear(2, 2)), "head"),  # type: ignore[arg-type]
        (lambda: lyapunov_model(nn.Linear(2, 2), torch.zeros(1, 2)), "model"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_answered_in_a_sentence(make, words):
    with pytest.raises(jiio.JiioError, match=words):
        make()


def test_inference_mode_is_refused_in_a_sentence():
    with torch.inference_mode(), pytest.raises(jiio.GradientError, match="no_grad"):
        cell()(torch.zeros(1, N).double(), torch.zeros(1, N).double())
