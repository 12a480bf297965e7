"""The Jacobian penalty along the trajectory of a joint solve: what is drawn, and that it is what is penalised."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last tables.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.diagnostics import jacobian_penalty
from jiio.outputs.seeds import generator
from jiio.tasks.frame.config import ConfigError
from jiio.tasks.frame.load import build
from jiio.tasks.generate.task import GenerateConfig
from jiio.tasks.maps.base import Inpaint
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import DecoderConfig
from jiio.tasks.solving.trajectory import AtSolution, DrawnIterate, place
from problems import CASES

SMALL: dict[str, Any] = {
    "threads": 1,
    "data": {"family": "faces", "size": 12, "batch_size": 4, "train_limit": 8, "test_limit": 4},
    "corruption": {"name": "BoxHole", "options": {"side": 4}},
    "joint": {"max_steps": 12},
}
MODEL = {"cell": {"name": "Dense", "options": {"features": 24, "gain": 0.5}}, "latent": 6, "jacobian": 0.1}


def config(**model: Any) -> RestoreConfig:
    return build(RestoreConfig, SMALL | {"model": MODEL | model})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solution(z: Any, x: Any, batch: int) -> jiio.Solution:
    """A record of trees of these shapes; only they are looked at."""
    nothing = torch.zeros(batch)
    return jiio.Solution(z, x, None, nothing, nothing, nothing, nothing[:, None], ("z",), jiio.Evaluations())


def test_every_iterate_is_as_likely_as_any_other() -> None:
    """4,000 samples, five iterates that say their own number: each is kept by 800, give or take four deviations."""
    drawn, batch = DrawnIterate(seeded()), 4000
    for k in range(5):
        drawn.callback(k, torch.full((batch, 2), float(k)), torch.full((batch, 1), 10.0 * k), torch.zeros(batch))
    z, x = drawn.point(solution(torch.zeros(batch, 2), torch.zeros(batch, 1), batch))
    assert isinstance(z, Tensor) and isinstance(x, Tensor)
    assert torch.equal(10 * z[:, :1], x)  # state and input of one iterate
    counts = torch.bincount(z[:, 0].long(), minlength=5)
    assert int(counts.sum()) == batch and float((counts - 800).abs().max()) < 4 * (batch * 0.2 * 0.8) ** 0.5


def test_iterates_that_are_no_numbers_are_passed_over() -> None:
    drawn, good = DrawnIterate(seeded()), torch.tensor([[1.0], [2.0]])
    drawn.callback(0, good, good, good[:, 0])
    for k in range(20):
        drawn.callback(k + 1, torch.tensor([[float("nan")], [2.0]]), good, good[:, 0])
    z, _ = drawn.point(solution(good, good, 2))
    assert torch.equal(z, good)

    # They count for nothing: the first one that is finite is taken, however many were before it.
    late, nothing = DrawnIterate(seeded()), torch.full((2, 1), float("nan"))
    for k in range(20):
        late.callback(k, nothing, good, good[:, 0])
    late.callback(20, good, good, good[:, 0])
    assert torch.equal(late.point(solution(good, good, 2))[0], good)


def test_trees_come_back_as_trees() -> None:
    drawn = DrawnIterate(seeded())
    z, x = (torch.ones(3, 2, 2), torch.zeros(3, 1)), {"a": torch.ones(3, 2)}
    drawn.callback(0, z, x, torch.zeros(3))
    assert gap(drawn.point(solution(z, x, 3)), (z, x)) == 0.0


def test_what_is_drawn_was_visited_and_nothing_else_is_changed() -> None:
    case, drawn = CASES["tanh"], DrawnIterate(seeded(3))
    few: dict[str, Any] = {"adjoint": jiio.Detached(), "max_steps": 8, "on_failure": "ignore"}
    plain, watched = case.solve(trace="points", **few), case.solve(callback=drawn.callback, **few)
    assert torch.equal(plain.x, watched.x) and plain.trace is not None
    z, x = drawn.point(watched)
    pairs = list(zip(plain.trace.z, plain.trace.x, strict=True))
    for i in range(case.batch):
        assert any(torch.equal(z[i], a[i]) and torch.equal(x[i], b[i]) for a, b in pairs)
    assert gap(x, watched.x) > 1e-3  # drawn from all of them, not the last


def test_the_penalty_is_that_of_the_drawn_iterate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a step less its error is the weight times the penalty where the callback was, by the same probe."""
    found: dict[str, tuple[Tensor, dict[str, float]]] = {}
    kept: list[DrawnIterate] = []
    monkeypatch.setattr("jiio.tasks.restore.latent.place", lambda name, source: _noted(kept, place(name, source)))
    for name in ("solution", "trajectory"):
        task = Restore(config(jacobian_at=name))
        torch.manual_seed(0)
        model = task.model()
        found[name] = task.loss(model, 3)
    (at, figures), (drawn,) = found["trajectory"], kept
    assert figures["error"] == found["solution"][1]["error"] and figures["jacobian"] != found["solution"][1]["jacobian"]

    operator = Inpaint(torch.ones(4, 1, 12, 12))
    cell = model.problem(torch.zeros(4, 1, 12, 12), operator).cell
    z, x = drawn.z, drawn.x
    expected = float(jacobian_penalty(cell, z, x, generator=generator(0, "probe", 3)).mean().detach())
    assert abs(figures["jacobian"] - expected) < 1e-6 * expected
    assert abs(float(at.detach()) - figures["error"] - 0.1 * figures["jacobian"]) < 1e-4 * figures["error"]


def _noted(kept: list[DrawnIterate], where: AtSolution | DrawnIterate) -> AtSolution | DrawnIterate:
    if isinstance(where, DrawnIterate):
        kept.append(where)
    return where


def test_a_step_is_a_function_of_seed_and_step() -> None:
    losses = []
    for _ in range(2):
        task = Restore(config(jacobian_at="trajectory"))
        torch.manual_seed(0)
        losses.append(float(task.loss(task.model(), 1)[0].detach()))
    assert losses[0] == losses[1]


WORDS: list[Any] = ["end", "Trajectory", "", None, 0, True, ["solution"], 1.5]


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_other_places_are_refused(word: Any) -> None:
    for make in (lambda: DecoderConfig(jacobian_at=word), lambda: config(jacobian_at=word)):
        with pytest.raises(jiio.JiioError, match=r"jacobian_at") as caught:
            make()
        assert str(caught.value).count("\n") == 0


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a seed for a generator": (lambda: DrawnIterate(3), "generator"),
    "no generator": (lambda: place("trajectory", None), "generator"),
    "a point before a solve": (
        lambda: DrawnIterate(seeded()).point(solution(torch.zeros(1, 1), torch.zeros(1, 1), 1)),
        "watched",
    ),
    "a generator's training": (lambda: build(GenerateConfig, {"model": {"jacobian_at": "trajectory"}}), "jacobian_at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_misuse_is_refused_in_a_sentence(case: str) -> None:
    action, words = REFUSED[case]
    with pytest.raises(jiio.JiioError, match=words):
        action()


def test_config_errors_are_of_their_kind() -> None:
    with pytest.raises(ConfigError):
        build(GenerateConfig, {"model": {"jacobian_at": "trajectory"}})
