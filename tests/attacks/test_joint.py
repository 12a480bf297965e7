"""The joint attack's own manners: at which points of the solve it looks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import jiio
from attack_models import blobs, equilibrium
from jiio.attacks import APGD, PGD, JointAttack, Target, ThreatModel
from jiio.attacks.methods.joint import _Watch


@pytest.mark.parametrize("curvature", [None, 1.0], ids=["measured", "given"])
def test_it_looks_at_the_steps_after_settle(curvature: float | None) -> None:
    """Whether or not a solve measures its scales first: a look at no step returns the start, at the last one not."""
    x, y = blobs(6, seed=3)
    rule = jiio.GradientStep(curvature=curvature)

    def found(settle: int) -> Tensor:
        attack = JointAttack(steps=6, settle=settle, check=1, rule=rule, tolerance=jiio.Tolerance(1e-12, 1e-12))
        return attack.run(Target(equilibrium()), x, y, ThreatModel("l2", 0.5), torch.Generator())

    assert torch.equal(found(6), x)
    assert bool(((found(5) - x).flatten(1).norm(dim=1) > 0).all())


def test_the_rule_is_chosen_by_the_norm() -> None:
    x, _ = blobs(4, seed=3)
    for norm, kind, blocks in (("linf", jiio.SignStep, ("z", "mu")), ("l2", jiio.GradientStep, None)):
        rule, solver = JointAttack(steps=20).moves(x, ThreatModel(norm, 0.5))
        assert isinstance(rule, kind) and isinstance(solver, jiio.Anderson) and solver.blocks == blocks

    # What is said is used, whatever the norm.
    said = jiio.GradientStep(0.1), jiio.Picard()
    assert JointAttack(rule=said[0], solver=said[1]).moves(x, ThreatModel("linf", 0.5)) == said


def test_sign_steps_fall_from_half_the_radius_to_a_fiftieth_sample_by_sample() -> None:
    x, _ = blobs(2, seed=3)
    radius = torch.tensor([0.1, 0.4])
    rule, _ = JointAttack(steps=20).moves(x, ThreatModel("linf", radius))
    gradient = torch.ones_like(x.flatten(1))
    for step, share in ((0, 0.5), (20, 0.02), (10, 0.1)):
        moved, _ = rule.update(x.flatten(1), gradient, (), rule.at(step))
        assert torch.allclose(x.flatten(1) - moved, share * radius[:, None] * gradient, rtol=1e-4, atol=1e-6)


def test_a_point_whose_state_lags_is_not_believed() -> None:
    """The strongest scores come with a state far from an equilibrium; what is kept is weaker and true."""
    x, y = torch.zeros(1, 2), torch.tensor([0])
    seen = _Watch(x, y, settle=0, lag=0.1)
    offered = ((0.5, -1.0, 1.0), (0.01, 0.2, 2.0), (0.9, 5.0, 3.0), (0.05, 0.1, 4.0))
    for step, (off, wrong, place) in enumerate(offered):
        state = torch.ones(1, 4)
        seen.hear(state * (1 - off), state)
        seen.keep(torch.tensor([[0.0, wrong]]))
        seen.step(step, state, torch.full_like(x, place), torch.zeros(1))
    assert seen.strongest.tolist() == [[2.0, 2.0]]


def test_without_a_believed_point_it_is_the_one_nearest_to_an_equilibrium() -> None:
    seen = _Watch(torch.zeros(1, 2), torch.tensor([0]), settle=0, lag=0.01)
    for step, off in enumerate((0.5, 0.2, 0.4)):
        state = torch.ones(1, 4)
        seen.hear(state * (1 - off), state)
        seen.keep(torch.tensor([[0.0, 1.0]]))
        seen.step(step, state, torch.full((1, 2), float(step)), torch.zeros(1))
    assert seen.strongest.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("attack", [PGD(steps=12, random_start=False), APGD(steps=12, random_start=False)])
def test_loose_inner_solves_find_much_the_same_for_fewer_calls(attack: PGD | APGD) -> None:
    model = equilibrium()
    x, y = blobs(16, seed=3)
    counts, margins = [], []
    for one in (attack, dataclasses.replace(attack, warm=True, tolerance=3e-2)):
        found = one(Target(model), x, y, ThreatModel("linf", 0.3), generator=torch.Generator().manual_seed(0))
        counts.append(found.cost["evaluations"] + found.cost["vjps"])
        margins.append(float(found.margin.mean()))
    assert 1.5 * counts[1] < counts[0] and margins[1] > margins[0] - 0.05 * abs(margins[0])


def test_a_loose_tolerance_needs_an_equilibrium() -> None:
    x, y = blobs(4, seed=3)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 4))
    with pytest.raises(jiio.ArgumentError, match=r"PGD\.tolerance: expected an EquilibriumModel to loosen"):
        PGD(tolerance=3e-2)(Target(plain), x, y, ThreatModel("linf", 0.3), generator=torch.Generator())
