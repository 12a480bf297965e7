"""Federations through Flower: averages by hand, clients that fail, folders that go on; processes in the slow run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from federate_cases import YAML, plan, recipe
from jiio.tasks.classify.task import Classify
from jiio.tasks.cli import main
from jiio.tasks.federate.client import Client, FederationError, everybody, taken_from
from jiio.tasks.federate.flower import LocalProxy, gathered
from jiio.tasks.federate.plan import Federation
from jiio.tasks.federate.rounds import Rounds
from jiio.tasks.federate.wire import free_address
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.load import read_yaml
from jiio.tasks.frame.step import TrainingError

pytest.importorskip("flwr", reason="needs the extra 'federated': pip install 'jiio[federated]'")
Arrays = list[np.ndarray]


class Bench:
    """A federation in this process whose clients can be tampered with."""

    def __init__(self, made: Federation, **changes: Any) -> None:
        self.plan, self.config = made, made.course(recipe(**changes))
        self.task = Classify(recipe(**changes))
        torch.manual_seed(0)
        self.model, self.news = self.task.model(), list[str]()
        self.start = taken_from(self.model)
        self.clients = everybody(made, self.config, self.task)
        self.rounds = Rounds(made, self.config, self.task, self.model, report=self.news.append, patience=0.1)

    def run(self, done: int = 0) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = []
        manager = gathered(self.clients, self.plan.digest(self.config))
        self.rounds.run(manager, done, lambda number, row: rows.append(row))
        return rows


def averaged(bench: Bench, weight: Callable[[Client], float], rounds: int) -> Arrays:
    """By hand, in double precision: the clients' weights, each by its share."""
    arrays = bench.start
    for number in range(rounds):
        works = [client.work(arrays, number).arrays for client in bench.clients]
        shares = np.array([weight(client) for client in bench.clients])
        shares = shares / shares.sum()
        mixed = [np.tensordot(shares, np.stack(parts).astype(float), 1) for parts in zip(*works, strict=True)]
        arrays = [array.astype(np.float32) for array in mixed]
    return arrays


@pytest.mark.parametrize(
    ("made", "weight"),
    [
        (plan(alpha=0.5), lambda client: client.examples),
        (plan(budgets=(2, 4, 9), weighting=Choice("IterationAware")), lambda client: (2, 4, 9)[client.index]),
        (plan(budgets=(2, 4, 9), weighting=Choice("IterationAware", {"power": 0.0})), lambda client: 1.0),
    ],
    ids=["examples", "steps", "uniform"],
)
def test_the_average_is_the_one_by_hand(made: Federation, weight: Callable[[Client], float]) -> None:
    bench = Bench(made)
    rows = bench.run()
    for ours, theirs in zip(taken_from(bench.model), averaged(bench, weight, 2), strict=True):
        assert np.allclose(ours, theirs, atol=2e-6)
    assert [row["clients"] for row in rows] == [3, 3] and [row["lost"] for row in rows] == [0, 0]


def test_unlike_weightings_give_unlike_weights() -> None:
    made = [plan(budgets=(2, 4, 9), weighting=Choice(name)) for name in ("ByExamples", "IterationAware")]
    ends = []
    for each in made:
        bench = Bench(each)
        bench.run()
        ends.append(taken_from(bench.model))
    assert any(not np.allclose(a, b, atol=1e-5) for a, b in zip(*ends, strict=True))


def test_one_client_is_an_ordinary_training_of_rounds() -> None:
    bench = Bench(plan(clients=1))
    bench.run()
    arrays = bench.start
    for number in range(2):
        arrays = bench.clients[0].work(arrays, number).arrays
    assert all(np.array_equal(a, b) for a, b in zip(taken_from(bench.model), arrays, strict=True))


def test_megabytes_are_those_of_the_weights_both_ways() -> None:
    """Each array travels with a head of 128 bytes at least, which is how NumPy writes one."""
    bench = Bench(plan())
    rows = bench.run()
    bare = sum(array.nbytes for array in bench.start)
    once = 3 * 2 * (bare + 128 * len(bench.start))
    assert [row["megabytes"] for row in rows] == pytest.approx([once / 1e6, 2 * once / 1e6])


@pytest.mark.parametrize("strategy", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "FedMedian", "FedTrimmedAvg"])
def test_strategies_of_flower_run(strategy: str) -> None:
    rows = Bench(plan(strategy=strategy, rounds=1)).run()
    assert np.isfinite(rows[0]["loss"]) and 0 <= rows[0]["accuracy"] <= 1


def test_a_client_that_fails_is_left_out_and_told() -> None:
    bench, alone = Bench(plan(alpha=0.5)), Bench(plan(alpha=0.5))

    def fails(arrays: Any, number: int) -> Any:
        raise TrainingError("step 3: the loss is nan.")

    bench.clients[1].work = fails  # type: ignore[method-assign]
    alone.clients = [alone.clients[0], alone.clients[2]]
    rows = bench.run()
    alone.run()
    assert [row["lost"] for row in rows] == [1, 1] and "step 3: the loss is nan." in bench.news
    assert all(np.array_equal(a, b) for a, b in zip(taken_from(bench.model), taken_from(alone.model), strict=True))


def tampered(bench: Bench, change: Callable[[Any], Any]) -> None:
    """Let what client 1 sends be another thing."""
    work = bench.clients[1].work
    bench.clients[1].work = lambda arrays, number: change(work(arrays, number))  # type: ignore[method-assign]


BAD = {
    "nan": (lambda w: _replaced(w, arrays=[w.arrays[0] * np.nan, *w.arrays[1:]]), "finite numbers, got NaN"),
    "fewer": (lambda w: _replaced(w, arrays=w.arrays[:-1]), "tensors of the recipe's model"),
    "shape": (lambda w: _replaced(w, arrays=[w.arrays[0].T, *w.arrays[1:]]), "of other shapes"),
    "stranger": (lambda w: _answer(w, client=7), "client 7 is none of this plan"),
    "boaster": (lambda w: _answer(w, budget=900), "client 1 is none of this plan"),
    "nothing": (lambda w: _answer(w, examples=0), "client 1 is none of this plan"),
    "twice": (lambda w: _answer(w, client=2), "client 2 is there twice"),
}


def _replaced(work: Any, **changes: Any) -> Any:
    return dataclasses.replace(work, **changes)


def _answer(work: Any, **changes: Any) -> Any:
    return _replaced(work, answer=_replaced(work.answer, **changes))


@pytest.mark.parametrize("name", BAD)
def test_an_answer_that_cannot_be_used_is_left_out(name: str) -> None:
    bench = Bench(plan(rounds=1))
    change, words = BAD[name]
    tampered(bench, change)
    (row,) = bench.run()
    assert row["clients"] == 2 and row["lost"] == 1 and any(words in told for told in bench.news)
    assert all(np.isfinite(array).all() for array in taken_from(bench.model))


def test_nobody_left_ends_the_rounds() -> None:
    bench = Bench(plan(clients=2))
    for client in bench.clients:
        client.work = lambda arrays, number: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(FederationError, match=r"round 1: expected an answer that can be used, got division by zero"):
        bench.run()
    with pytest.raises(FederationError, match=r"expected a client within 0.1 s, got none"):
        bench.rounds.run(gathered([], "x"), 0, lambda number, row: None)


def test_another_plan_is_refused_by_the_client() -> None:
    bench = Bench(plan(clients=1))
    manager = gathered([], "")
    manager.register(LocalProxy(bench.clients[0], "another"))
    with pytest.raises(FederationError, match="the server trains by another recipe"):
        bench.rounds.run(manager, 0, lambda number, row: None)


# -- the command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(YAML)
    return tmp_path


LINE = ["federate", "recipe.yaml", "--clients", "3", "--local-steps", "2", "--alpha", "0.5"]


def test_a_federation_leaves_weights_that_can_be_evaluated(here: Path, capsys) -> None:
    assert main([*LINE, "--rounds", "3", "--evaluate-every", "2"]) == 0
    table = json.loads(Path("runs/rounds.json").read_text())
    assert [row["round"] for row in table["rounds"]] == [1, 2, 3]
    assert ["accuracy" in row for row in table["rounds"]] == [False, True, True]
    found = load("runs/weights.safetensors")
    assert found.step == 6
    assert evaluate(found)[0]["accuracy"] == pytest.approx(table["rounds"][-1]["accuracy"])
    assert "round 3" in capsys.readouterr().err
    assert main([*LINE, "--rounds", "3"]) == 2
    assert "a folder without a training" in capsys.readouterr().err


def test_a_federation_goes_on_as_if_it_had_not_stopped(here: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from jiio.tasks.federate.folder import FederationFolder

    assert main([*LINE, "--rounds", "4", "--output", "whole"]) == 0
    save = FederationFolder.save

    def stopped(self: FederationFolder, number: int, row: Any, model: Any) -> None:
        save(self, number, row, model)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(FederationFolder, "save", stopped)
    assert main([*LINE, "--rounds", "4"]) == 130
    monkeypatch.setattr(FederationFolder, "save", save)
    assert main([*LINE, "--rounds", "5", "--resume"]) == 2
    assert "the federation that was begun" in capsys.readouterr().err
    assert main([*LINE, "--rounds", "4", "--resume"]) == 0
    a, b = (load_file(f"{folder}/weights.safetensors") for folder in ("whole", "runs"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [row["round"] for row in json.loads(Path("runs/rounds.json").read_text())["rounds"]] == [1, 2, 3, 4]
    assert main([*LINE, "--rounds", "4", "--resume"]) == 0  # nothing is left to do


def test_momentum_does_not_go_on(here: Path, capsys) -> None:
    assert main([*LINE, "--rounds", "1", "--strategy", "FedAdam"]) == 0
    assert main([*LINE, "--rounds", "1", "--strategy", "FedAdam", "--resume"]) == 2
    assert "whose momentum is in no checkpoint" in capsys.readouterr().err


def test_telemetry_is_off(here: Path) -> None:
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert read_yaml("CONFIG", Path("recipe.yaml"))["task"] == "classify"


# -- processes


def spawn(*words: str, heard: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "jiio", *words], stderr=heard, text=True)


@pytest.mark.slow
def test_processes_over_grpc_give_the_weights_of_one_process_bit_for_bit(here: Path) -> None:
    assert main([*LINE, "--rounds", "2", "--output", "alone"]) == 0
    with spawn(*LINE, "--rounds", "2", "--processes", heard=subprocess.PIPE) as server:
        told = server.communicate(timeout=300)[1]
    assert server.returncode == 0, told
    a, b = (load_file(f"{folder}/weights.safetensors") for folder in ("alone", "runs"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_clients_that_are_killed_are_survived(here: Path) -> None:
    """Kill one by its number while the rounds run: they go on without it, and another takes its place."""
    place = free_address()
    line = [*LINE, "--rounds", "200", "--local-steps", "40", "--patience", "60"]
    clients, lines = list[subprocess.Popen[str]](), list[str]()
    with spawn(*line, "--listen", place, heard=subprocess.PIPE) as server:
        clients += [spawn(*line, "--join", place, "--client", str(k)) for k in range(3)]
        assert server.stderr is not None
        for text in server.stderr:
            lines.append(text)
            if text.startswith("round 2,"):
                os.kill(clients[1].pid, signal.SIGKILL)
            if "clients 2" in text and len(clients) == 3:
                clients.append(spawn(*line, "--join", place, "--client", "1"))
            if text.startswith("round") and "clients 3" in text and len(clients) == 4:
                break
        for one in (*clients, server):
            one.kill()
            one.wait()
    there = [int(text.split("clients ")[1].split(",")[0]) for text in lines if text.startswith("round")]
    assert there[0] == 3 and 2 in there and there[-1] == 3, "".join(lines)
