"""Adversaries of embeddings: the balls, what the joint solve finds against a second route, and trainings with them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import jiio
from helpers import central, relative
from jiio.checks import JiioError
from jiio.models import Memory, TransformerModel
from jiio.tasks.cli import main
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.load import build, flatten, read_yaml
from jiio.tasks.frame.loop import train
from jiio.tasks.language.adversaries import (
    AbstractAdversary,
    Found,
    JointAdversary,
    PGDAdversary,
    TokenBalls,
    Unperturbed,
    reach,
)
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.task import Language
from jiio.tasks.language.text import Vocabulary
from loop_cases import dies, stopped

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(1e-10, 1e-10)
VOCABULARY = Vocabulary("characters", (*"abcdefg\n", "<unk>"))
SIZES = {"width": 8, "heads": 2, "inner": 12, "memory": 6}
SOLVE = {"atol": 1e-10, "rtol": 1e-10, "max_steps": 300}
ADVERSARIES = [{"name": "JointAdversary", "options": {"steps": 6}}, {"name": "PGDAdversary", "options": {"steps": 2}}]


def made(solve: dict | None = None, **over) -> LanguageModel:
    torch.manual_seed(0)
    config = build(LanguageConfig, {"model": SIZES, "solve": SOLVE if solve is None else solve} | over)
    model = LanguageModel(config, VOCABULARY).to(DOUBLE).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("table"):  # as sure of itself as a trained one
                parameter.mul_(2.0)
    return model


def segment(model: LanguageModel, batch: int = 2) -> tuple[Tensor, Memory | None, Tensor]:
    """Embeddings (batch, 5, width), the memory before them, and targets."""
    tokens = torch.randint(9, (batch, 12), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        memory = model.read(tokens[:, :6], None).memory
        return model.embed(tokens[:, 6:11]), memory, tokens[:, 7:]


def surprise(model: LanguageModel, x: Tensor, memory: Memory | None, targets: Tensor) -> Tensor:
    """(B, T) at an equilibrium of its own."""
    return model.body.tokens.surprise(model.hear(x, memory).state, targets)


# -- the balls


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.floats(0.0, 3.0), st.integers(0, 1000))
def test_balls_are_one_projection_per_token(tokens: int, width: int, radius: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    x, center = (torch.randn(2, tokens, width, dtype=DOUBLE, generator=source) for _ in range(2))
    radii = torch.tensor([radius, 0.7], dtype=DOUBLE)
    balls = TokenBalls(radii, center, width)
    found = balls(x)
    for b in range(2):
        for t in range(tokens):
            one = jiio.L2Ball(float(radii[b]), center=center[b : b + 1, t])(x[b : b + 1, t])
            torch.testing.assert_close(found[b : b + 1, t], one)
    assert float(balls.violation(found).max()) < 1e-12
    beyond = ((x - center).norm(dim=2) - radii[:, None]).clamp_min(0.0).amax(1)
    torch.testing.assert_close(balls.violation(x), beyond)


def test_the_exact_outer_gradient_goes_through_the_balls() -> None:
    """KKT against finite differences, where two tokens touch their ball and one does not."""
    torch.manual_seed(0)
    W, U = 0.5 * torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE)).Q, torch.randn(6, 6, dtype=DOUBLE)
    goal = torch.randn(1, 6, dtype=DOUBLE)
    pull = torch.tensor([[[3.0, 1.0], [-2.0, 4.0], [0.1, -0.1]]], dtype=DOUBLE)
    balls = TokenBalls(0.5, torch.zeros(1, 3, 2, dtype=DOUBLE), 2)

    def outer(theta: Tensor) -> tuple[Tensor, jiio.Solution]:
        problem = jiio.Problem(
            lambda z, x: torch.tanh(z @ W.T + 0.1 * x.flatten(1) @ U.T + theta),
            lambda z, x: 0.1 * (z - goal).square().sum(1) + 0.5 * (x - pull).square().flatten(1).sum(1),
            balls,
        )
        solution = jiio.solve(
            problem,
            torch.zeros(1, 3, 2, dtype=DOUBLE),
            torch.zeros(1, 6, dtype=DOUBLE),
            adjoint=jiio.KKT(rtol=1e-12),
            tolerance=jiio.Tolerance(1e-11, 1e-11),
            max_steps=2000,
        )
        return (solution.x * pull.flip(1)).sum() + solution.z.square().sum(), solution

    theta = torch.zeros(6, dtype=DOUBLE, requires_grad=True)
    loss, solution = outer(theta)
    lengths = solution.x.detach().norm(dim=2)[0]
    assert lengths[:2].tolist() == pytest.approx([0.5, 0.5]) and float(lengths[2]) < 0.45
    (slope,) = torch.autograd.grad(loss, theta)
    direction = torch.randn(6, dtype=DOUBLE)
    numeric = central(lambda at: outer(at)[0], theta.detach(), direction, 1e-4)
    assert relative(float(slope @ direction), numeric) < 1e-5


# -- what is found


@pytest.mark.parametrize("memory", [False, True])
def test_the_joint_perturbation_is_stationary_by_the_implicit_gradient(memory: bool) -> None:
    """One solve, and then a route without it: every token that touches its ball is pushed straight outwards."""
    model = made()
    x, before, targets = segment(model)
    before = before if memory else None
    found = JointAdversary(0.05, 600).find(model.body, x, before, targets)
    radius = reach(x, 0.05)[:, None]
    away = found.x - x
    assert float((away.norm(dim=2) - radius).max()) < 1e-12
    leaf = found.x.detach().requires_grad_()
    value = surprise(model, leaf, before, targets)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    touching = away.norm(dim=2) > radius * (1 - 1e-9)
    assert bool(touching.any())
    straight = torch.cosine_similarity(slope, away, dim=2)[touching]
    assert float(straight.min()) > 1 - 1e-6
    assert bool((value.sum(1) > surprise(model, x, before, targets).sum(1)).all())
    assert found.evaluations == found.vjps > 2


@pytest.mark.parametrize("adversary", [JointAdversary(1e-5, 200, 100.0), PGDAdversary(1e-5, 1, 1.0)])
def test_in_a_small_ball_the_gain_is_the_sum_of_the_gradients(adversary: AbstractAdversary) -> None:
    model = made()
    x, memory, targets = segment(model)
    leaf = x.clone().requires_grad_()
    before = surprise(model, leaf, memory, targets).sum(1)
    (slope,) = torch.autograd.grad(before.sum(), leaf)
    found = adversary.find(model.body, x, memory, targets)
    gain = surprise(model, found.x, memory, targets).sum(1) - before
    torch.testing.assert_close(gain.detach(), reach(x, 1e-5) * slope.norm(dim=2).sum(1), rtol=1e-3, atol=0.0)


def test_the_joint_solve_reaches_what_pgd_reaches_for_fewer_calls() -> None:
    model = made({"max_steps": 40})
    x, memory, targets = segment(model, 6)
    reached, calls = [], []
    for adversary in (Unperturbed(), JointAdversary(0.2, 20), PGDAdversary(0.2, 10)):
        found = adversary.find(model.body, x, memory, targets)
        reached.append(float(surprise(made(), found.x, memory, targets).detach().mean()))
        calls.append(found.evaluations + found.vjps)
    clean, joint, pgd = reached
    assert joint - clean > 0.95 * (pgd - clean) > 0.05
    assert calls[0] == 0 and 0 < calls[1] < 0.6 * calls[2]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_the_loss_stays_causal(place: int) -> None:
    """A perturbed token never changes what was predicted before it, nor has that a gradient in the perturbation."""
    model = made()
    x, memory, targets = segment(model)
    away = JointAdversary(0.3, 8).find(model.body, x, memory, targets).x - x
    kept = torch.zeros_like(away)
    kept[:, place] = away[:, place]
    kept.requires_grad_()
    before, after = (surprise(model, x + d, memory, targets) for d in (torch.zeros_like(kept), kept))
    changed = (after - before).detach().abs().amax(0)
    assert float(changed[:place].max() if place else 0.0) < 1e-8 < 1e-4 < float(changed[place])
    (slope,) = torch.autograd.grad(after[:, : max(place, 1)].sum(), kept)
    assert float(slope[:, max(place, 1) :].abs().max()) < 1e-8


@pytest.mark.parametrize("adversary", [JointAdversary(steps=5), PGDAdversary(steps=2)])
def test_an_adversary_leaves_nothing_behind(adversary: AbstractAdversary) -> None:
    """No gradients, no random draws, no other mode; dropout is at rest while it looks; samples do not meet."""
    model = made(model=SIZES | {"dropout": 0.3}).train()
    x, memory, targets = segment(model)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = adversary.find(model.body, x, memory, targets).x
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and all(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(first, adversary.find(model.body, x, memory, targets).x)
    assert memory is not None
    half = Memory(tuple(s[1:] for s in memory.states), memory.embedding[1:])
    alone = adversary.find(model.body, x[1:], half, targets[1:]).x
    torch.testing.assert_close(alone, first[1:], rtol=1e-6, atol=1e-8)


def test_a_sample_that_is_not_finite_is_left_as_it_is() -> None:
    model = made()
    x, memory, targets = segment(model)
    with torch.no_grad():
        dict(model.named_parameters())["body.cell.up.weight"].fill_(torch.nan)
    found = PGDAdversary(steps=1).find(model.body, x, memory, targets)
    assert torch.equal(found.x, x)


# -- training


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training leaves a shorter sample."""
    monkeypatch.setattr("jiio.tasks.language.task.SAMPLE", 5)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log\n" * 40, encoding="utf-8")
    return path


def configuration(text: Path, output: Path, **over) -> LanguageConfig:
    data = {
        "family": f"file:{text}",
        "segment": 6,
        "segments": 2,
        "batch_size": 3,
        "streams": 2,
        "held_out": 0.1,
        "valid_limit": 30,
    }
    values = {"task": "language", "output": str(output), "steps": 4, "checkpoint_every": 2, "threads": 1}
    return build(LanguageConfig, values | {"model": SIZES, "data": data, "solve": {"max_steps": 12}} | over)


class Shift(AbstractAdversary):
    """Always the same perturbation."""

    def __init__(self, away: Tensor) -> None:
        self.away = away

    def find(self, model, x, memory, targets) -> Found:
        return Found(x + self.away)


def test_the_weights_learn_on_the_perturbed_embeddings(text: Path, tmp_path: Path) -> None:
    """The loss against the model of shifted embeddings, its gradient against finite differences, embedding included."""
    config = configuration(text, tmp_path / "run", jacobian={"weight": 0.0}, solve=SOLVE)
    task = Language(config)
    torch.manual_seed(0)
    model = task.model().to(DOUBLE).eval()
    assert isinstance(model, LanguageModel)
    plain = float(task.loss(model, 0)[0].detach())
    away = 0.5 * torch.randn(3, 6, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    task.adversaries = [Shift(away), Unperturbed()]
    both = float(task.loss(model, 0)[0].detach())
    task.adversaries = task.adversaries[:1]
    shifted = float(task.loss(model, 0)[0].detach())
    assert both == pytest.approx(0.5 * (plain + shifted)) and abs(plain - shifted) > 1e-3
    # The memory is a constant of the loss: a difference agrees where there is none, with one segment.
    task.config = replace(config, data=replace(config.data, segments=1))
    for name in ("body.tokens.table", "body.cell.attention.project.weight"):
        parameter = dict(model.named_parameters())[name]
        (slope,) = torch.autograd.grad(task.loss(model, 0)[0], parameter)
        direction = torch.randn(parameter.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
        at = parameter.detach().clone()

        def moved(value: Tensor, parameter: Tensor = parameter) -> Tensor:
            parameter.data.copy_(value)
            return task.loss(model, 0)[0]

        numeric = central(moved, at, direction)
        parameter.data.copy_(at)
        assert relative(float((slope * direction).sum()), numeric) < 1e-5, name


@pytest.mark.slow
def test_a_training_defends(text: Path, tmp_path: Path) -> None:
    """After the same few steps the perturbed text is less of a surprise than to a model that never met any."""
    judge = PGDAdversary(0.3, 4)
    perplexities = {}
    for name, adversary in (("none", []), ("defended", ADVERSARIES[:1])):
        config = configuration(text, tmp_path / name, adversary=adversary)
        task = Language(replace(config, data=replace(config.data, segments=1, batch_size=6)))
        torch.manual_seed(0)
        model = task.model()
        assert isinstance(model, LanguageModel)
        optimiser = torch.optim.Adam(model.train().parameters(), 0.02)
        for step in range(30):
            optimiser.zero_grad()
            loss, figures = task.loss(model, step)
            loss.backward()
            optimiser.step()
        assert ("adversary_vjps" in figures) == (name != "none")
        row = task.measured(model.eval(), judge)
        perplexities[name] = float(row["perplexity per character"])
    assert perplexities["defended"] < 0.9 * perplexities["none"]


def test_a_resumed_training_is_the_same_bit_for_bit(text: Path, tmp_path: Path) -> None:
    over = {"adversary": [ADVERSARIES[0], {"name": "Unperturbed"}], "model": SIZES | {"dropout": 0.2}}
    straight = train(configuration(text, tmp_path / "a", **over))

    half = configuration(text, tmp_path / "b", **over)
    with pytest.raises(KeyboardInterrupt), stopped(Language, 3, dies):
        train(half)
    resumed = train(half, resume=True, report=lambda line: None)
    assert all(torch.equal(straight.tensors[name], resumed.tensors[name]) for name in straight.tensors)


def test_the_commands(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, run = tmp_path / "config.yaml", str(tmp_path / "run")
    config.write_text(
        "task: language\nsteps: 3\nthreads: 1\nwarm: {steps: 1}\n"
        "adversary: [{name: JointAdversary, options: {radius: 0.2, steps: 4}}, {name: Unperturbed}]\n"
    )
    words = ["train", str(config), "--output", run, "--data.family", f"file:{text}", "--data.segment", "8"]
    words += ["--model.width", "8", "--model.heads", "2", "--model.inner", "8", "--data.batch_size", "2"]
    assert main(words) == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["adversary_vjps"] > 0 for line in log] == [False, True, True]  # not while it is warming up
    assert main(["evaluate", run, "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["adversary"] for row in rows] == ["none", "JointAdversary"]
    assert rows[1]["perplexity per character"] > rows[0]["perplexity per character"]
    assert main([*words, "--adversary", '[{"name": "Joint"}]', "--output", run + "2"]) == 2
    told = capsys.readouterr().err
    assert "no adversary is called 'Joint'" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adversary": [{"name": "JointAdverary"}]}, "JointAdversary"),
        ({"adversary": {"name": "JointAdversary"}}, "adversary: expected a list"),
        ({"adversary": [{"name": "JointAdversary", "options": {"radius": 0}}]}, "radius: expected a number above 0"),
        ({"adversary": [{"name": "JointAdversary", "options": {"steps": 1}}]}, "steps"),
        ({"adversary": [{"name": "JointAdversary", "options": {"rate": -1.0}}]}, "rate"),
        ({"adversary": [{"name": "JointAdversary", "options": {"memory": 0}}]}, "memory"),
        ({"adversary": [{"name": "JointAdversary", "options": {"norm": "l2"}}]}, "no such option"),
        ({"adversary": [{"name": "PGDAdversary", "options": {"steps": 0}}]}, r"adversary\[0\].options, steps"),
        ({"adversary": [{"name": "PGDAdversary", "options": {"step": "long"}}]}, "step"),
        ({"adversary": ADVERSARIES[:1], "depth": {"name": "Explicit"}}, "needs the equilibrium"),
        ({"adversary": ADVERSARIES[1:], "depth": {"name": "WeightTied"}}, "PGDAdversary"),
    ],
)
def test_bad_configurations_get_a_sentence(text: Path, tmp_path: Path, values: dict, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        configuration(text, tmp_path / "run", **values)


def test_the_embeddings_as_they_are_suit_every_depth(text: Path, tmp_path: Path) -> None:
    over = {"adversary": [{"name": "Unperturbed"}], "depth": {"name": "WeightTied", "options": {"layers": 2}}}
    task = Language(configuration(text, tmp_path / "run", **over))
    model = task.model()
    assert isinstance(model, LanguageModel) and isinstance(model.body, TransformerModel)
    assert len(task.evaluate(model.eval())) == 1
    bare = Language(configuration(text, tmp_path / "run", depth=over["depth"]))
    assert float(task.loss(model, 0)[0].detach()) == float(bare.loss(model, 0)[0].detach())


@pytest.mark.parametrize(("radius", "width"), [(-1.0, 2), (float("nan"), 2), (1.0, 0), ("wide", 2)])
def test_bad_balls_get_a_sentence(radius, width: int) -> None:
    with pytest.raises(JiioError, match=r"radius|width"):
        TokenBalls(radius, torch.zeros(1, 2, 2), width)


def test_the_keys_on_the_page_are_the_defaults(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "language.md").read_text(encoding="utf-8")
    (tmp_path / "keys.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    written = read_yaml("page", tmp_path / "keys.yaml")
    assert build(LanguageConfig, written) == LanguageConfig()
    missing = flatten(asdict(LanguageConfig())).keys() - flatten(written).keys()
    assert {key.partition(".")[0] for key in missing} <= {field.name for field in fields(RunConfig)}
