"""Regularised dynamics: the input that moves during the solve, random states in the loss, and the attacks on both."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import jiio
from attack_models import blobs, equilibrium
from jiio.attacks import PGD, JointAttack, SurrogateAttack, Target, ThreatModel
from jiio.models import DenseConfig, RegulatedModel, classifier, entropy, intermediate_scores

TIGHT = {
    "tolerance": jiio.Tolerance(1e-12, 1e-11),
    "adjoint": jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12)),
    "max_steps": 200,
    "on_failure": "ignore",
}


@functools.cache
def exact() -> Any:
    """A model in double precision whose solves are converged."""
    torch.manual_seed(0)
    model: Any = classifier(DenseConfig(8, scaling="spectral"), image=(1, 4, 4), classes=3, **TIGHT)  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.linear.weight.mul_(4)
    return model.double().eval()


def images(count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 4, 4, generator=draw, dtype=torch.float64)


def test_entropy_is_that_of_the_formula_and_at_most_log_classes():
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    p = scores[2].softmax(0)
    expected = torch.stack((torch.tensor(4.0).double().log(), torch.tensor(0.0).double(), -(p * p.log()).sum()))
    torch.testing.assert_close(entropy(scores), expected)


def test_one_update_is_the_step_of_the_formula():
    """By a second route: autograd through the unpacked model, one round with one update."""
    model, x = exact(), images(5)
    regulated = RegulatedModel.of(model, radius=0.1, step=0.03, rounds=1, solver_steps=50, updates=1)
    z = model.solve(x, adjoint=jiio.Detached(), max_steps=50).z
    leaf = x.clone().requires_grad_()
    weight, bias = model.head.linear.weight, model.head.linear.bias
    p = F.softmax(F.linear(model.cell(z, model.inject(leaf)), weight, bias), dim=1)
    (gradient,) = torch.autograd.grad(-(p * p.log()).sum(), leaf)
    expected = (x - 0.03 * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(regulated.regulate(x), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.integers(1, 3))
def test_the_input_stays_in_ball_and_bounds(seed, radius, rounds):
    x = images(4, seed)
    regulated = RegulatedModel.of(exact(), radius=radius, rounds=rounds, updates=3)
    with torch.no_grad():
        moved = regulated.regulate(x)
    assert float((moved - x).abs().max()) <= radius + 1e-12
    assert float(moved.min()) >= 0.0 and float(moved.max()) <= 1.0
    assert not moved.requires_grad


def test_the_entropy_falls_and_the_prediction_is_that_of_an_equilibrium():
    model, x = exact(), images(20)
    regulated = RegulatedModel.of(model, radius=0.1)
    with torch.no_grad():
        assert bool((entropy(regulated(x)) < entropy(model(x))).all())
        torch.testing.assert_close(regulated(x), model(regulated.regulate(x)))
        solution = regulated.solve(x)
    assert bool(solution.converged.all())
    assert solution.x is x
    # 4 rounds of 2 solver steps and 10 updates, then the solve itself; one product per update
    assert solution.evaluations.vjp == 40
    assert solution.evaluations.cell >= 4 * (2 + 10) + int(solution.steps.max())


def test_samples_do_not_see_each_other():
    regulated, x = RegulatedModel.of(exact(), radius=0.1, rounds=2, updates=3), images(6)
    with torch.no_grad():
        together, alone = regulated(x), torch.cat([regulated(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("smooth", [False, True])
def test_the_gradient_through_the_defence_agrees_with_finite_differences(smooth):
    """Of the sign updates almost everywhere, of the smooth ones with the slope of every update."""
    x, direction = images(4), images(4, 7) - 0.5
    regulated = RegulatedModel.of(exact(), radius=0.1, rounds=2, updates=3)
    model = regulated.smoothed(2.0) if smooth else regulated
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    with torch.no_grad():
        ahead, back = (model(x + sign * 1e-6 * direction)[:, 0] for sign in (1.0, -1.0))
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), (ahead - back) / 2e-6, rtol=1e-4, atol=1e-6)


def test_smoothing_tends_to_the_sign():
    x = images(6)
    regulated = RegulatedModel.of(exact(), radius=0.1, rounds=1, updates=2)
    with torch.no_grad():
        target = regulated.regulate(x)
        far, near = ((regulated.smoothed(s).regulate(x) - target).abs().max() for s in (1.0, 1e-6))
    assert float(near) < 1e-4 < float(far)


def test_the_state_is_held_while_the_input_moves():
    """The smooth updates go the way of the plain ones: the graph to the state changes the gradient, not the value."""
    x = images(5)
    smooth = RegulatedModel.of(exact(), radius=0.1, rounds=2, updates=3).smoothed()
    with torch.no_grad():
        expected = smooth.regulate(x)
    torch.testing.assert_close(smooth.regulate(x.clone().requires_grad_()).detach(), expected)


# -- random states


def test_intermediate_scores_are_those_of_the_plain_loop():
    model, x = exact(), images(3)
    u = model.inject(x)
    z = model.cell(model.cell.initial_state(u), u)
    for _ in range(2):
        z = 0.3 * z + 0.7 * model.cell(z, u)
    torch.testing.assert_close(intermediate_scores(model, x, steps=1, unrolled=2, damping=0.7), model.head(z))


def test_intermediate_scores_tend_to_those_of_the_equilibrium():
    model, x = exact(), images(3)
    with torch.no_grad():
        torch.testing.assert_close(intermediate_scores(model, x, steps=100), model(x))
        early = intermediate_scores(model, x, steps=1, unrolled=1)
    assert float((early - model(x)).detach().abs().max()) > 1e-2


def test_intermediate_gradients_are_those_of_the_taped_steps():
    """Against the phantom gradient of the engine at the same state, which is another piece of code."""
    model, x = exact(), images(3)
    grads = []
    for scores in (
        intermediate_scores(model, x, steps=4),
        model.head(model.solve(x, max_steps=4, adjoint=jiio.Phantom(5, 0.5)).z),
    ):
        grads.append(torch.autograd.grad(scores.square().sum(), model.inject.linear.weight)[0])
    torch.testing.assert_close(*grads)


# -- attacks


def test_attacks_see_the_defended_model_and_bypassing_ones_are_verified_on_it():
    x, y = blobs(16, seed=3)
    base = equilibrium()
    regulated = RegulatedModel.of(base, radius=0.05, rounds=1, updates=2)
    threat = ThreatModel("linf", 0.15)
    found = (
        PGD(steps=3),
        JointAttack(steps=30, check=1),
        SurrogateAttack(base, PGD(steps=6)),
        SurrogateAttack(regulated.smoothed(), PGD(steps=2)),
    )
    for attack in found:
        result = attack(regulated, x, y, threat)
        with torch.no_grad():
            label = regulated(result.x).argmax(1)
        assert torch.equal(label != y, result.success), attack.name
        assert bool(result.success.any()), attack.name


def test_a_surrogate_that_knows_nothing_finds_little_and_modes_come_back():
    x, y = blobs(16, seed=3)
    torch.manual_seed(0)
    stranger = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).train()
    base, threat = equilibrium(), ThreatModel("linf", 0.1)
    own = PGD(steps=8)(base, x, y, threat)
    other = SurrogateAttack(stranger, PGD(steps=8), "stranger")(base, x, y, threat)
    assert int(other.success.sum()) < int(own.success.sum())
    assert stranger.training
    assert "stranger" in SurrogateAttack(stranger, PGD(), "stranger").name


def test_a_surrogate_sees_normalised_images_as_the_target_does():
    x, y = blobs(16, seed=3)
    base = equilibrium()
    shifted = Target(base, mean=0.1, std=0.9)
    found = SurrogateAttack(base, PGD(steps=6))(shifted, x, y, ThreatModel("linf", 0.15))
    direct = PGD(steps=6)(shifted, x, y, ThreatModel("linf", 0.15))
    assert torch.equal(found.success, direct.success)
    assert found.cost["backward"] == direct.cost["backward"] == 6
    assert found.cost["evaluations"] > direct.cost["evaluations"]  # two predictions more


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"radius": 0.0}, "radius"),
        ({"radius": 0.1, "step": -1.0}, "step"),
        ({"radius": 0.1, "rounds": 0}, "rounds"),
        ({"radius": 0.1, "solver_steps": 1}, "solver_steps"),
        ({"radius": 0.1, "updates": 0}, "updates"),
        ({"radius": 0.1, "bounds": (1.0, 0.0)}, "bounds"),
        ({"radius": 0.1, "bounds": 3.0}, "bounds"),
        ({"radius": 0.1, "softness": -1.0}, "softness"),
    ],
)
def test_bad_settings_are_answered_in_a_sentence(settings, words):
    with pytest.raises(jiio.JiioError, match=words):
        RegulatedModel.of(exact(), **settings)


def test_other_bad_arguments_are_answered_in_a_sentence():
    with pytest.raises(jiio.JiioError, match="model"):
        RegulatedModel.of(nn.Linear(2, 2), radius=0.1)  # type: ignore[arg-type]
    with pytest.raises(jiio.JiioError, match="steps"):
        intermediate_scores(exact(), images(1), steps=0)
    with pytest.raises(jiio.JiioError, match="surrogate"):
        SurrogateAttack(3, PGD())  # type: ignore[arg-type]
    with torch.inference_mode(), pytest.raises(jiio.GradientError, match="no_grad"):
        RegulatedModel.of(exact(), radius=0.1)(images(1))
