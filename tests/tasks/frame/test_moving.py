"""How the weights move: methods and schedules against closed forms; a penalty that is taken in a share of the steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jiio.checks import JiioError
from jiio.tasks.classify.defences import JacobianPenalty
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.load import build
from jiio.tasks.frame.step import build_optimiser, learning_rate


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        ("cosine", 0, 0.5),
        ("cosine", 1, 1.0),
        ("cosine", 2, 1.0),
        ("cosine", 7, 0.1 + 0.9 * 0.5),
        ("poly", 1, 1.0),
        ("poly", 2, 1.0),
        ("poly", 7, 0.1 + 0.9 * 0.5**0.9),
        ("poly", 11, 0.1 + 0.9 * 0.1**0.9),
    ],
)
def test_schedules(schedule: str, step: int, rate: float) -> None:
    """Two steps of rise to 1, ten of fall to 0.1."""
    config = OptimiserConfig(rate=1.0, final_rate=0.1, warmup=2, schedule=schedule)
    assert learning_rate(config, step, 12) == pytest.approx(rate)


def test_momentum_is_nesterovs() -> None:
    """On w^2 / 2 with decay d: g = w (1 + d), v <- m v + g, w <- w - r (g + m v)."""
    layer, rate, momentum, decay = nn.Linear(1, 1, bias=False), 0.1, 0.8, 0.5
    nn.init.ones_(layer.weight)
    optimiser = build_optimiser(layer, OptimiserConfig(rate=rate, weight_decay=decay, method="sgd", momentum=momentum))
    w, v = 1.0, 0.0
    for _ in range(4):
        optimiser.zero_grad()
        layer.weight.square().sum().div(2).backward()
        optimiser.step()
        g = w * (1 + decay)
        v = momentum * v + g
        w -= rate * (g + momentum * v)
        assert float(layer.weight.detach()) == pytest.approx(w)


def test_adam_stays_what_it_was() -> None:
    assert isinstance(build_optimiser(nn.Linear(1, 1), OptimiserConfig()), torch.optim.AdamW)


def test_a_penalty_in_a_share_of_the_steps() -> None:
    data = {"family": "faces", "size": 8, "batch_size": 4}
    model = {"cell": {"name": "Dense", "options": {"features": 6}}}
    defence = [{"name": "JacobianPenalty", "options": {"weight": 10.0, "share": 0.3}}]
    made = [build(ClassifyConfig, {"data": data, "model": model, "defence": d}) for d in (defence, [])]
    tasks = [Classify(config) for config in made]
    torch.manual_seed(0)
    network = tasks[0].model()
    apart = [float((tasks[0].loss(network, s)[0] - tasks[1].loss(network, s)[0]).detach()) for s in range(60)]
    taken = sum(abs(difference) > 1e-4 for difference in apart)
    assert 8 <= taken <= 30 and all(d > -1e-4 for d in apart)  # 18 of 60, three deviations on either side
    assert math.isfinite(sum(apart))


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(JiioError, match=r"JacobianPenalty\.share"):
        JacobianPenalty(share=share)
