"""Who has which examples, what an answer counts, and what is refused; none of it needs Flower."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from federate_cases import MISTAKES, PLAIN, YAML, plan, recipe
from jiio.checks import JiioError
from jiio.tasks.classify.task import Classify
from jiio.tasks.cli import main
from jiio.tasks.federate.client import Client, FederationError, put_into, taken_from
from jiio.tasks.federate.options import FederateOptions
from jiio.tasks.federate.plan import Federation, budgeted
from jiio.tasks.federate.split import shared_out
from jiio.tasks.federate.weighting import AbstractWeighting, ByExamples, Contribution, IterationAware
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import ConfigError, build
from jiio.tasks.frame.registry import config_class
from jiio.tasks.frame.task import build_task

LABELS = torch.arange(10).repeat_interleave(40)


@pytest.mark.parametrize("alpha", [None, 100.0, 1.0, 0.1])
@pytest.mark.parametrize("clients", [1, 3, 7])
def test_everything_is_shared_out_once(alpha: float | None, clients: int) -> None:
    parts = shared_out(LABELS, clients, alpha=alpha, seed=0)
    assert len(parts) == clients and min(map(len, parts)) >= 2
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(LABELS)))
    again, other = (shared_out(LABELS, clients, alpha=alpha, seed=seed) for seed in (0, 1))
    assert all(map(torch.equal, parts, again))
    assert clients == 1 or not all(torch.equal(a, b) for a, b in zip(parts, other, strict=True))


def unlikeness(alpha: float | None) -> float:
    """The mean over clients and seeds of the largest share of one class; 0.1 where everybody has all ten alike."""
    shares = []
    for seed in range(5):
        for part in shared_out(LABELS, 5, alpha=alpha, seed=seed):
            shares.append(float(LABELS[part].bincount(minlength=10).max() / len(part)))
    return sum(shares) / len(shares)


def test_a_small_concentration_leaves_few_classes() -> None:
    """Of Dirichlet shares with concentration a, the variance is (1/5)(4/5)/(5a + 1): 0.11 at 0.1, 0.0003 at 100."""
    even, near, far = unlikeness(None), unlikeness(100.0), unlikeness(0.1)
    assert even < 0.2 and near < 0.2 and far > 0.35
    counts = torch.stack([LABELS[p].bincount(minlength=10) for p in shared_out(LABELS, 5, alpha=1.0, seed=0)])
    spread = torch.cat(
        [LABELS[p].bincount(minlength=10) / 40.0 for s in range(20) for p in shared_out(LABELS, 5, alpha=1.0, seed=s)]
    )
    assert counts.sum(0).tolist() == [40] * 10
    assert float(spread.var()) == pytest.approx(0.2 * 0.8 / 6, rel=0.15)  # 1000 shares of concentration 1


def test_even_shares_have_one_size() -> None:
    assert {len(p) for p in shared_out(LABELS[:31], 3, alpha=None, seed=0)} == {10, 11}


@pytest.mark.parametrize(
    ("clients", "alpha", "words"), [(300, None, "at most 200 of them"), (150, 0.01, "Raise alpha")]
)
def test_too_many_clients_are_refused(clients: int, alpha: float | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shared_out(LABELS, clients, alpha=alpha, seed=0)


def test_what_an_answer_counts() -> None:
    answer = Contribution(client=1, examples=30, budget=9, loss=0.5)
    assert ByExamples().weight(answer) == 30.0 and IterationAware().weight(answer) == 9.0
    assert IterationAware(power=0.5).weight(answer) == 3.0 and IterationAware(power=0.0).weight(answer) == 1.0
    with pytest.raises(JiioError, match=r"IterationAware\.power"):
        IterationAware(power=-1.0)


@pytest.mark.parametrize("options", [{}, {"power": 2.0}])
def test_a_plan_names_its_weighting(options: dict[str, float]) -> None:
    made = plan(budgets=(4,), weighting=Choice("IterationAware", options)).weighting.make("weighting", "weighting")
    assert isinstance(made, AbstractWeighting) and made == IterationAware(**options)


def test_budgets_of_clients() -> None:
    assert [plan().budget(k) for k in range(3)] == [0, 0, 0]
    assert [plan(budgets=(5,)).budget(k) for k in range(3)] == [5, 5, 5]
    configs: list[Any] = [plan(budgets=(2, 4, 6)).config(recipe(), k) for k in range(3)]
    assert [c.model.max_steps for c in configs] == [2, 4, 6]
    adjoints = [c.model.solve_settings().adjoint for c in configs]
    assert [a.max_steps for a in adjoints] == [2, 4, 6]
    assert len({c.seed for c in configs}) == 3 and {c.steps for c in configs} == {4}


@pytest.mark.parametrize(
    ("task", "key"), [("classify", "model"), ("segment", "model"), ("restore", "joint"), ("language", "solve")]
)
def test_a_budget_reaches_every_solve(task: str, key: str) -> None:
    config = build(config_class({"task": task}), {"task": task})
    assert getattr(budgeted(config, 7), key).max_steps == 7


@pytest.mark.parametrize(
    "values",
    [
        {"task": "generate"},
        {"task": "classify", "model": {"cell": {"name": "Reference"}}},
        {"task": "language", "depth": {"name": "Explicit"}},
    ],
)
def test_a_budget_without_a_solve_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="budgets: expected a recipe with the solve of an equilibrium"):
        budgeted(build(config_class(values), values), 7)


def test_the_digest_is_of_what_all_must_agree_on() -> None:
    mine = plan().digest(recipe())
    assert mine == plan().digest(recipe(output="elsewhere", threads=None)) and len(mine) == 32
    assert mine != plan().digest(recipe(seed=1)) and mine != plan(alpha=1.0).digest(recipe())


SHARED = {
    "classify": {"data": {"family": "faces", "size": 8, "batch_size": 4}},
    "segment": {"data": {"family": "scenes", "size": [32, 32], "train_limit": 20, "test_limit": 4, "batch_size": 2}},
    "generate": {
        "data": {"size": 8, "batch_size": 4},
        "model": {"cell": {"name": "Dense", "options": {"features": 6}}, "latent": 4, "squash": "none"},
    },
    "restore": {
        "data": {"size": 8, "batch_size": 4},
        "corruption": {"name": "BoxHole", "options": {"side": 3}},
        "model": {"cell": {"name": "Dense", "options": {"features": 6}}, "latent": 4, "squash": "none"},
    },
    "language": {
        "data": {"segment": 8, "segments": 1, "batch_size": 2, "train_limit": 400},
        "model": {"width": 8, "heads": 2, "inner": 8},
    },
}


@pytest.mark.parametrize("task", SHARED)
def test_a_part_of_a_task_trains_on_its_share_alone(task: str) -> None:
    config = build(config_class({"task": task}), {"task": task, **SHARED[task]})
    whole = build_task(config)
    labels = whole.examples()
    chosen = torch.arange(1, len(labels), 2)
    mine = whole.part(chosen, dataclasses.replace(config, seed=5))
    assert len(mine.examples()) == len(chosen) and torch.equal(mine.examples(), labels[chosen])
    assert mine.config.seed == 5 and whole.config.seed == 0 and len(whole.examples()) == len(labels)
    torch.manual_seed(0)
    assert bool(mine.loss(mine.model(), 0)[0].isfinite())


def test_a_task_that_cannot_be_shared_out_says_so() -> None:
    config = build(config_class({"task": "prior"}), {"task": "prior"})
    with pytest.raises(JiioError, match="one whose training examples can be shared out, got Prior"):
        build_task(config).examples()


def test_a_client_works_from_the_weights_it_is_sent() -> None:
    config = recipe()
    task = Classify(config)
    torch.manual_seed(0)
    sent = taken_from(task.model())
    kept = [array.copy() for array in sent]
    client = Client(plan(), config, task, 1)
    first, again, later = client.work(sent, 0), client.work(sent, 0), client.work(sent, 1)
    other = Client(plan(), config, task, 2).work(sent, 0)
    assert all((a == b).all() for a, b in zip(sent, kept, strict=True))
    assert all((a == b).all() for a, b in zip(first.arrays, again.arrays, strict=True))
    for work in (later, other):
        assert any((a != b).any() for a, b in zip(first.arrays, work.arrays, strict=True))
    assert first.answer.client == 1 and first.answer.examples == client.examples and first.evaluations > 0


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_clients_keep_their_shares_alone(alpha: float | None) -> None:
    config = recipe()
    task = Classify(config)
    parts = shared_out(task.examples(), 3, alpha=alpha, seed=config.seed)
    for index, part in enumerate(parts):
        mine = Client(plan(alpha=alpha), config, task, index).task
        assert isinstance(mine, Classify) and torch.equal(mine.data.train, task.data.train[part])
        assert torch.equal(mine.examples(), task.examples()[part])


def test_weights_of_another_model_are_refused() -> None:
    model = torch.nn.Linear(3, 2)
    good = taken_from(model)
    put_into(model, [array * 2 for array in good])
    assert all((a == 2 * b).all() for a, b in zip(taken_from(model), good, strict=True))
    for wrong, words in (
        (good[:1], "2 tensors of the recipe's model, got 1"),
        ([good[1], good[0]], "2 of other shapes"),
        ([good[0] * float("nan"), good[1]], "finite numbers, got NaN"),
    ):
        with pytest.raises(FederationError, match=words):
            put_into(model, wrong)


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(YAML)
    assert main(["federate", "recipe.yaml", *words.split()]) == 2
    errors = capsys.readouterr().err
    assert MISTAKES[words] in errors and len(errors.splitlines()) == 1 and not Path("runs").exists()


def test_budgets_of_an_explicit_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(PLAIN)
    assert main(["federate", "recipe.yaml", "--budgets", "4"]) == 2
    assert "a recipe with the solve of an equilibrium" in capsys.readouterr().err and not Path("runs").exists()


def test_without_flower_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "flwr.common", None)
    Path("recipe.yaml").write_text(YAML)
    assert main(["federate", "recipe.yaml"]) == 2
    assert "pip install 'jiio[federated]'" in capsys.readouterr().err and not Path("runs").exists()


def test_the_command_hands_every_option_on() -> None:
    options = FederateOptions(
        "x",
        clients=2,
        rounds=3,
        local_steps=4,
        alpha=0.5,
        budgets=(5, 6),
        weighting="IterationAware",
        strategy="FedAdam",
    )
    told = Federation(2, 3, 4, 0.5, (5, 6), Choice("IterationAware"), "FedAdam")
    assert options.plan() == told
