"""Adaptation, the meta-gradient through the joint solve, and the task ``meta``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn.utils import parametrize

import jiio
from helpers import central, relative
from jiio.checks import JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import build
from jiio.tasks.meta import adaptation
from jiio.tasks.meta.adaptation import FirstOrderAdaptation, JointAdaptation, NestedAdaptation
from jiio.tasks.meta.episodes import Episodes, episodes
from jiio.tasks.meta.learner import QUERY, FewShotLearner, FilmCell, LearnerConfig
from jiio.tasks.meta.task import Meta, MetaConfig
from loop_cases import dies, stopped

SMALL = LearnerConfig(channels=(4,), features=5, task=3, prior=0.5, gain=0.5)
TIGHT: dict[str, Any] = {"atol": 1e-12, "rtol": 1e-11, "max_steps": 600, "adjoint_rtol": 1e-12, "adjoint_steps": 400}


def learner(seed: int = 0) -> FewShotLearner:
    torch.manual_seed(seed)
    made = FewShotLearner(SMALL, channels=1, size=6).double()
    with torch.no_grad():
        made.log_scale.fill_(0.0)  # small distances: adaptation has something to do
        made.get_parameter("cell.parametrizations.weight.original").mul_(
            1.2
        )  # away from the kink, where the clamp sets in
    return made


def tasks_of(shots: int, seed: int = 0) -> Episodes:
    """Three classes that are a picture each, with a little noise: the inner problem has one minimum."""
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.rand(2, 3, 1, 1, 6, 6, generator=draw, dtype=torch.float64)

    def images(count: int) -> Tensor:
        noise = torch.rand(2, 3, count, 1, 6, 6, generator=draw, dtype=torch.float64)
        return (0.8 * kinds + 0.2 * noise).flatten(1, 2)

    return Episodes(images(shots), images(2), 3)


# ----------------------------------------------------------------------------------------------------------------------
# The meta-gradient


class Outer:
    """The outer loss as a function of all weights in one vector."""

    def __init__(self, made: FewShotLearner, batch: Episodes, how: adaptation.AbstractAdaptation) -> None:
        self.made, self.batch, self.how = made, batch, how
        self.names = [name for name, _ in made.named_parameters()]
        self.shapes = [p.shape for p in made.parameters()]
        self.at = torch.cat([p.detach().flatten() for p in made.parameters()])

    def set(self, weights: Tensor) -> None:
        with torch.no_grad():
            parts = weights.split([s.numel() for s in self.shapes])
            for p, part, shape in zip(self.made.parameters(), parts, self.shapes, strict=True):
                p.copy_(part.view(shape))

    def loss(self) -> Tensor:
        made, batch = self.made, self.batch
        support, query = made.images(batch.support), made.images(batch.query)
        adapted = self.how.adapt(made.problem(support, 3), made.start(2))
        assert bool(adapted.converged.all())
        features = jiio.equilibrium(query, adapted.x, tolerance=jiio.Tolerance(1e-13, 1e-12), adjoint=EXACT).z
        scores = made.scores(features, adapted.z.unflatten(1, (3, -1)).mean(2))
        return F.cross_entropy(scores.transpose(1, 2), batch.labels(batch.query).expand(2, -1))

    def __call__(self, weights: Tensor) -> Tensor:
        self.set(weights)
        return self.loss()

    def gradient(self) -> Tensor:
        self.set(self.at)
        found = torch.autograd.grad(self.loss(), list(self.made.parameters()), allow_unused=True)
        return torch.cat(
            [
                (torch.zeros(s, dtype=torch.float64) if g is None else g).flatten()
                for g, s in zip(found, self.shapes, strict=True)
            ]
        )


EXACT = jiio.Implicit(tolerance=jiio.Tolerance(1e-13, 1e-12), max_steps=300)


def explicit_gradient(made: FewShotLearner, batch: Episodes, start: Tensor) -> Tensor:
    """The same gradient without the engine: the sum over the tasks, each on its own."""
    parts = []
    for b in range(2):
        one = Episodes(batch.support[b : b + 1], batch.query[b : b + 1], 3)
        parts.append(explicit_task(made, one, start[b : b + 1] + 0.01) / 2)
    return parts[0] + parts[1]


def explicit_task(made: FewShotLearner, one: Episodes, x: Tensor) -> Tensor:
    """States by plain iterations, x by Newton, and the implicit function theorem of the reduced problem with its dense
    Hessian.
    """
    weights = list(made.parameters())
    support, query = made.images(one.support), made.images(one.query)
    problem = made.problem(support, 3)

    def state(cell: FilmCell, x: Tensor) -> Tensor:
        z = torch.zeros_like(cell.u)
        with parametrize.cached():
            for _ in range(50):
                z = cell(z, x)
        return z

    def slope_of(x: Tensor) -> tuple[Tensor, Tensor]:
        inner = problem.objective(state(support, x), x).sum()
        (slope,) = torch.autograd.grad(inner, x, create_graph=True)
        return slope[0], torch.stack([torch.autograd.grad(s, x, retain_graph=True)[0][0] for s in slope[0]])

    for _ in range(6):
        x = x.detach().requires_grad_()
        slope, hessian = slope_of(x)
        x = x - torch.linalg.solve(hessian, slope.detach())[None]
    x = x.detach().requires_grad_()
    scores = made.scores(state(query, x), state(support, x).unflatten(1, (3, -1)).mean(2))
    outer = F.cross_entropy(scores.transpose(1, 2), one.labels(one.query)[None])
    direct = torch.autograd.grad(outer, [x, *weights], allow_unused=True, retain_graph=True)
    slope, hessian = slope_of(x)
    w = torch.linalg.solve(hessian, direct[0][0]).detach()
    through = torch.autograd.grad(slope @ w, weights, allow_unused=True)
    blank = [torch.zeros_like(p) for p in weights]
    pairs = zip(direct[1:], through, blank, strict=True)
    return torch.cat([((o if a is None else a) - (o if c is None else c)).flatten() for a, c, o in pairs])


@pytest.mark.parametrize("shots", [1, 2])
def test_the_meta_gradient_equals_finite_differences_and_a_dense_route(shots):
    made = learner()
    outer = Outer(made, tasks_of(shots), JointAdaptation(**TIGHT))
    gradient = outer.gradient()
    draw = torch.Generator().manual_seed(3)
    for _ in range(2):
        direction = torch.randn(outer.at.shape, generator=draw, dtype=torch.float64)
        expected = central(outer, outer.at, direction, h=1e-5)
        assert relative(float(gradient @ direction), expected) < 1e-5
    outer.set(outer.at)
    with torch.no_grad():
        problem = made.problem(made.images(outer.batch.support), 3)
        x = JointAdaptation(**TIGHT).adapt(problem, made.start(2)).x
    dense = explicit_gradient(made, outer.batch, x)
    assert float((gradient - dense).norm() / dense.norm()) < 1e-7


@pytest.mark.slow
def test_nested_adaptation_has_the_same_gradient_and_first_order_has_not():
    outer = Outer(learner(), tasks_of(1), JointAdaptation(**TIGHT))
    exact = outer.gradient()
    options = {"rule": "Gradient", "rate": 0.7, "steps": 150, "atol": 1e-11, "rtol": 1e-10}
    outer.how = NestedAdaptation(**options, adjoint_rtol=1e-12, adjoint_steps=400)
    assert float((outer.gradient() - exact).norm() / exact.norm()) < 1e-5
    outer.how = FirstOrderAdaptation(**options)
    assert float((outer.gradient() - exact).norm() / exact.norm()) > 1e-3


# ----------------------------------------------------------------------------------------------------------------------
# Adaptation


def test_all_ways_reach_the_same_minimum():
    made, batch = learner(), tasks_of(1)
    problem = made.problem(made.images(batch.support), 3)
    with torch.no_grad():
        joint = JointAdaptation(**TIGHT).adapt(problem, made.start(2))
        nested = NestedAdaptation(rule="Gradient", rate=0.7, steps=100, atol=1e-9, rtol=1e-8).adapt(
            problem, made.start(2)
        )
        few = FirstOrderAdaptation(rate=0.05).adapt(problem, made.start(2))
        plain = jiio.equilibrium(problem.cell, made.start(2), **QUERY.arguments())
        before = problem.objective(plain.z, made.start(2))
    assert torch.allclose(joint.x, nested.x, atol=1e-5)
    assert bool((joint.value <= few.value + 1e-9).all()) and bool((few.value < before).all())
    assert bool((joint.value < before - 1e-3).all())
    assert bool((few.calls < nested.calls).all())


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(3)))
def test_the_order_of_the_classes_does_not_matter(seed, order):
    made, batch = learner(), tasks_of(1, seed)
    with torch.no_grad():
        scores = []
        for support in (batch.support, batch.support[:, list(order)]):
            cell = made.images(support)
            adapted = JointAdaptation(**TIGHT).adapt(made.problem(cell, 3), made.start(2))
            scores.append(made.classify(adapted.z, adapted.x, made.images(batch.query), 3))
    assert torch.allclose(scores[0][:, :, list(order)], scores[1], atol=1e-4)


def test_a_task_does_not_see_its_batch_mates():
    made, batch = learner(), tasks_of(2)
    with torch.no_grad():
        both = JointAdaptation().adapt(made.problem(made.images(batch.support), 3), made.start(2))
        one = JointAdaptation().adapt(made.problem(made.images(batch.support[1:]), 3), made.start(1))
    assert torch.allclose(both.x[1:], one.x, atol=1e-10)


def test_scores_are_minus_scaled_squared_distances():
    made = learner()
    with torch.no_grad():
        made.log_scale.fill_(float(np.log(2.0)))
        scores = made.scores(torch.zeros(1, 1, 5, dtype=torch.float64), torch.ones(1, 1, 5, dtype=torch.float64))
    assert float(scores) == pytest.approx(-10.0)


# ----------------------------------------------------------------------------------------------------------------------
# The task

TOY = {
    "task": "meta",
    "steps": 4,
    "checkpoint_every": 2,
    "threads": 1,
    "data": {"ways": 3, "queries": 2, "batch_size": 2},
    "model": {"channels": [4, 4, 4], "features": 8, "task": 4},
    "test": {"tasks": 4, "ways": [3], "shots": [2], "queries": 2},
}


def toy(output: Path, **changes) -> MetaConfig:
    return build(MetaConfig, TOY | {"output": str(output)} | changes)


@pytest.mark.parametrize(
    "name", ["Joint", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Nested", "FirstOrder"))]
)
def test_training_lowers_the_loss(name, tmp_path):
    options = {} if name == "Joint" else {"steps": 3}
    config = toy(tmp_path, adaptation={"name": name, "options": options}, data=TOY["data"] | {"batch_size": 3})
    task = Meta(config)
    torch.manual_seed(0)
    model = task.model()
    assert isinstance(model, FewShotLearner)
    fixed = episodes(task.train, config.data, seed=9, purpose="check", number=0, tasks=20, turn=False)
    with torch.no_grad():
        before = float(task.outer(model, fixed)[0])
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(8):
        optimiser.zero_grad()
        loss, figures = task.loss(model, step)
        loss.backward()
        optimiser.step()
        assert figures["calls"] > 0
    with torch.no_grad():
        assert float(task.outer(model, fixed)[0]) < before - 0.02


def test_the_command_trains_shows_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text("task: meta\nsteps: 2\n")
    words = ["--data.ways", "3", "--data.queries", "2", "--data.batch_size", "2", "--model.channels", "[4,4]"]
    words += ["--model.features", "8", "--test.tasks", "3", "--test.ways", "[3,4]", "--test.shots", "[1,2]"]
    assert main(["train", "m.yaml", "--output", "run", *words]) == 0
    assert {p.name for p in Path("run").iterdir()} >= {"episode.png", "weights.safetensors", "log.jsonl"}
    Image.open("run/episode.png").verify()
    capsys.readouterr()
    assert isinstance(Meta.trained(load(Path("run"))), FewShotLearner)
    assert main(["evaluate", "run", "--json", "f.json"]) == 0
    table = capsys.readouterr().err
    for word in ("3-way 1-shot", "4-way 2-shot", "Joint", "not adapted", "nearest image"):
        assert word in table


def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path):
    from jiio.tasks.frame.loop import train

    train(toy(tmp_path / "a"), report=lambda line: None)
    halted = dataclasses.replace(toy(tmp_path / "b"))
    with pytest.raises(KeyboardInterrupt), stopped(Meta, 3, dies):
        train(halted, report=lambda line: None)
    train(toy(tmp_path / "b"), resume=True, report=lambda line: None)
    a, b = load(tmp_path / "a" / "weights.safetensors"), load(tmp_path / "b" / "weights.safetensors")
    assert a.step == b.step == 4 and all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


@pytest.mark.parametrize(
    "values, words",
    [
        ({"data": {"family": "glyph"}}, "Did you mean 'glyphs'"),
        ({"data": {"family": "folder:/no/such"}}, "not a folder"),
        ({"data": {"ways": 1}}, "data.ways"),
        ({"data": {"ways": 900}}, "at least 900 classes"),
        ({"data": {"shots": 0}}, "data.shots"),
        ({"data": {"queries": 50}}, "at least 51 images of every class"),
        ({"data": {"channels": 2}}, "data.channels"),
        ({"data": {"size": 4}}, "data.size"),
        ({"test": {"ways": [5], "shots": [1, 5]}}, "test.shots"),
        ({"test": {"ways": [500], "shots": [1]}}, "at least 500 classes"),
        ({"test": {"tasks": 1}}, "test.tasks"),
        ({"model": {"channels": []}}, "model.channels"),
        ({"model": {"channels": [6]}}, "multiples of 4"),
        ({"model": {"gain": 1.2}}, "model.gain"),
        ({"model": {"prior": 0.0}}, "model.prior"),
        ({"adaptation": {"name": "Jointly"}}, "Did you mean 'Joint'"),
        ({"adaptation": {"name": "Nested", "options": {"rule": "Newton"}}}, "rule"),
        ({"adaptation": {"name": "Joint", "options": {"steps": 3}}}, "no such option"),
        ({"adaptation": {"name": "FirstOrder", "options": {"rate": -1}}}, "rate"),
        ({"joint": {}}, "no such key"),
    ],
)
def test_bad_configurations_get_a_sentence(values, words):
    with pytest.raises(JiioError, match=words):
        Meta(build(MetaConfig, {"task": "meta"} | values))


def test_the_default_adaptation_is_the_joint_one():
    assert isinstance(MetaConfig().adaptation.make("adaptation", "adaptation"), JointAdaptation)
    assert MetaConfig().adaptation == Choice("Joint")
