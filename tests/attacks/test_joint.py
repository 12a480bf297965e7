"""The joint attack's own manners: at which points of the solve it looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio
from attack_models import blobs, equilibrium
from jiio.attacks import JointAttack, Target, ThreatModel


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
