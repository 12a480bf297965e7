"""The defences Lyapunov, LyapunovFeature and RegulatedDynamics in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import jiio
from jiio.attacks import Target
from jiio.checks import JiioError
from jiio.models import LyapunovCell, LyapunovFlow, RegulatedModel
from jiio.tasks.classify.data import ClassifyDataConfig
from jiio.tasks.classify.defences import Answers, Batch, Clean
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.stability import Lyapunov, LyapunovFeature, RegulatedDynamics
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.loop import train


def config(folder: Path, *defences: Choice, cell: str = "Dense") -> ClassifyConfig:
    """Three steps on a few small pictures."""
    sizes: dict[str, Any] = {"features": 8, "gain": 0.6, "scaling": "spectral"} if cell == "Dense" else {}
    return ClassifyConfig(
        output=str(folder),
        steps=3,
        optimiser=OptimiserConfig(rate=1e-2, warmup=0),
        data=ClassifyDataConfig("faces", 8, batch_size=6, train_limit=12, test_limit=8),
        model=NetworkConfig(Choice(cell, sizes)),
        defence=defences,
    )


def step(made: ClassifyConfig) -> tuple[Any, torch.Tensor]:
    task = Classify(made)
    torch.manual_seed(0)
    model = task.model().train()
    return model, task.loss(model, 0)[0]


def test_a_lyapunov_training_is_stable_orthogonal_and_survives_its_checkpoint(tmp_path):
    made = config(
        tmp_path / "run", Choice("PGDTraining", {"radius": 0.3, "steps": 2}), Choice("Lyapunov", {"widths": [5]})
    )
    model: Any = Classify.trained(train(made))
    assert type(model.cell) is LyapunovCell
    weight = model.head.linear.weight.detach()
    assert float((weight @ weight.t() - torch.eye(2)).abs().max()) < 1e-5
    fresh = Classify(made).model()
    start = dict(fresh.named_parameters())["cell.potential.inner.0.weight"]
    assert not torch.equal(start, model.cell.potential.inner[0].weight)  # read from the checkpoint


def test_the_term_is_the_mean_violation_at_states_around_the_equilibria(tmp_path):
    defence = Lyapunov(weight=0.5, alpha=2.0, noise=0.7)  # a rate that the cell alone does not reach
    model, _ = step(config(tmp_path / "run", Choice("Lyapunov", {"alpha": 2.0})))
    assert type(model.cell) is LyapunovCell
    x, y = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64)
    batch = Batch(Target(model), x, y, seed=0, step=0)
    answers = Answers.of(batch.target, x, [Clean()])
    reached = answers.clean.reached
    assert reached is not None
    term = defence.term(batch, answers)
    z = reached.state.detach()
    size = z.square().mean(1, keepdim=True).sqrt()
    away = z + 0.7 * size * torch.randn(z.shape, generator=batch.draws("states"))
    assert term is not None
    expected = 0.5 * model.cell.violation(away, model.inject(x)).mean()
    torch.testing.assert_close(term, expected)
    assert float(term.detach()) > 0
    assert Lyapunov(weight=0.0).term(batch, answers) is None


def test_the_flow_stands_before_an_orthogonal_layer(tmp_path):
    model, loss = step(config(tmp_path / "run", Choice("LyapunovFeature", {"widths": [4], "steps": 2})))
    assert type(model.head[0]) is LyapunovFlow and model.head[0].steps == 2
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_regulated_dynamics_trains_at_random_depths_and_deploys_the_moving_input(tmp_path):
    defence = RegulatedDynamics(depth=6, radius=0.1, rounds=2, updates=3)
    batch = [Batch(Target(nn.Flatten()), torch.zeros(1, 1), torch.zeros(1), 0, k) for k in range(40)]
    depths = {defence.solving(b)["max_steps"] for b in batch}
    assert depths == {2, 3, 4, 5, 6}
    assert isinstance(defence.solving(batch[0])["adjoint"], jiio.Phantom)
    made = config(tmp_path / "run", Choice("RegulatedDynamics", {"radius": 0.1, "rounds": 2, "updates": 3}))
    assert not isinstance(step(made)[0], RegulatedModel)  # trained as it is
    used = Classify.trained(train(made))
    assert isinstance(used, RegulatedModel)
    assert (used.radius, used.rounds, used.updates) == (0.1, 2, 3)
    bare = config(tmp_path / "bare", Choice("RegulatedDynamics"))
    assert not isinstance(Classify.trained(train(bare)), RegulatedModel)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lyapunov(weight=-1.0),
        lambda: Lyapunov(widths=()),
        lambda: Lyapunov(noise=0.0),
        lambda: LyapunovFeature(steps=0),
        lambda: RegulatedDynamics(depth=1),
        lambda: RegulatedDynamics(radius=-0.1),
        lambda: RegulatedDynamics(updates=0),
        lambda: RegulatedDynamics(damping=0.0),
    ],
)
def test_bad_settings_are_answered_in_a_sentence(make):
    with pytest.raises(JiioError, match=r"expected .*, got"):
        make()


def test_a_plain_network_or_feature_maps_are_refused(tmp_path):
    for name in ("Lyapunov", "LyapunovFeature", "RegulatedDynamics"):
        with pytest.raises(JiioError, match=f"{name} needs an equilibrium"):
            config(tmp_path, Choice(name), cell="Reference")
    with pytest.raises(JiioError, match="Dense or Monotone"):
        step(config(tmp_path, Choice("LyapunovFeature"), cell="Conv"))
