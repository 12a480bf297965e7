"""The training loop: exact resume, whole files, refusals in a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import toy
from jiio import CheckpointError, JiioError
from jiio.tasks.frame.checkpoint import checkpoints, load, save
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.interrupt import TrainingInterrupted
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.step import TrainingError, learning_rate
from jiio.tasks.restore.latent import RestoreConfig
from loop_cases import assert_same_training, config_of, interrupted, presses, run, stopped


@pytest.fixture(autouse=True)
def with_toy(monkeypatch, tmp_path):
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)


class BrokenToy(toy.ToyTask):
    """The loss is not a number from some step on."""

    def loss(self, model, step):
        loss, figures = super().loss(model, step)
        return loss * (float("nan") if step >= 12 else 1.0), figures


def test_a_training_learns_and_leaves_whole_files():
    done = run(config_of("a"))
    assert done.step == 40 and done.path == Path("a/step-00000040.safetensors")
    assert sorted(p.name for p in Path("a").iterdir()) == [
        "log.jsonl",
        "step-00000035.safetensors",
        "step-00000040.safetensors",
        "weights.safetensors",
    ]
    lines = [json.loads(line) for line in Path("a/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(40))
    assert set(lines[0]) == {"step", "loss", "gradient_norm", "rate", "brightness"}
    assert sum(line["loss"] for line in lines[-5:]) < 0.5 * sum(line["loss"] for line in lines[:5])
    rows = evaluate(load(Path("a/weights.safetensors")))
    assert rows[0]["squared error"] == evaluate(load(Path("a")))[0]["squared error"]


def test_the_seed_decides_everything_and_the_global_random_state_nothing():
    torch.manual_seed(1)
    run(config_of("a"))
    after = torch.rand(3)
    torch.manual_seed(2)
    run(config_of("b"))
    assert_same_training("a", "b")
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))  # and the caller's random state is left alone
    other = run(config_of("c", seed=1))
    assert not torch.equal(other.tensors["model.4.bias"], load(Path("a")).tensors["model.4.bias"])


def test_resume_of_a_finished_training_changes_nothing():
    run(config_of("a"))
    before = {p.name: p.read_bytes() for p in Path("a").iterdir()}
    assert run(config_of("a"), resume=True).step == 40
    assert before == {p.name: p.read_bytes() for p in Path("a").iterdir()}


def test_resume_where_nothing_is_begins():
    said = []
    train(config_of("a"), resume=True, report=said.append)
    assert any("begins at step 0" in line for line in said)
    run(config_of("b"))
    assert_same_training("a", "b")


def test_a_damaged_newest_checkpoint_is_reported_and_passed_over():
    run(config_of("whole"))
    config = config_of("cut")
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 22)
    newest = checkpoints(Path("cut"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    said = []
    train(config, resume=True, report=said.append)
    assert any(newest.name in line and "damaged" in line for line in said)
    assert_same_training("whole", "cut")


def test_no_whole_checkpoint_is_an_error_and_not_a_new_beginning():
    config = config_of("a")
    run(config)
    for path in checkpoints(Path("a")):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="damaged"):
        run(config, resume=True)


def test_a_torn_log_line_is_repaired():
    run(config_of("whole"))
    config = config_of("cut")
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 20)
    with Path("cut/log.jsonl").open("ab") as file:
        file.write(b'{"step": 21, "loss": 0.5}\n{"step": 22, "lo')
    run(config, resume=True)
    assert_same_training("whole", "cut")


def test_stale_temporary_files_are_removed():
    Path("a").mkdir()
    Path("a/.step-00000005.safetensors.123-0123abcd.jiio-part").write_bytes(b"half a checkpoint")
    Path("a/.thesis.part").write_bytes(b"somebody else's")
    run(config_of("a"))
    assert [path.name for path in Path("a").glob(".*")] == [".thesis.part"]


def test_a_training_is_not_written_over():
    run(config_of("a"))
    for _ in range(2):
        with pytest.raises(JiioError, match=r"output: .*--resume"):
            run(config_of("a"))
        for path in checkpoints(Path("a")):  # weights alone are worth as much
            path.unlink()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"steps": 30}, "steps"),
        ({"data": {"size": 8, "batch_size": 5}}, "data.batch_size"),
        ({"corruption": {"name": "BoxHole", "options": {"side": 4}}}, "corruption.options.side"),
        ({"optimiser": {"rate": 1e-3, "warmup": 3}}, "optimiser.rate"),
    ],
)
def test_another_configuration_is_not_continued(changes, key):
    run(config_of("a"))
    with pytest.raises(CheckpointError, match=f"another configuration, {key} is .* there and .* here"):
        run(config_of("a", **changes), resume=True)


def test_what_the_weights_do_not_depend_on_may_change():
    run(config_of("whole"))
    config = config_of("cut")
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 20)
    Path("cut").rename("moved")
    run(dataclasses.replace(config, output="moved", checkpoint_every=7, keep=1), resume=True)
    assert_same_training("whole", "moved")


def test_other_versions_are_said(monkeypatch):
    config = config_of("a")
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 20)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    said = []
    train(config, resume=True, report=said.append)
    assert any("9.9.9" in line and "bit for bit" in line for line in said)


def test_a_loss_that_is_not_a_number_ends_the_training():
    config = config_of("a")
    with pytest.raises(TrainingError, match="step 12: the loss is nan"):
        run(config, task=BrokenToy(config))
    assert load(Path("a")).step == 10


def test_a_full_disk_leaves_the_last_checkpoint(monkeypatch):
    whole, real = [], os.fsync

    def full(handle):
        whole.append(handle)
        if len(whole) > 12:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "fsync", full)
        run(config_of("a"))
    assert not list(Path("a").glob(".*"))
    left = load(Path("a"))
    assert 5 <= left.step < 40 and left.step % 5 == 0


def test_the_schedule():
    config = OptimiserConfig(rate=0.2, final_rate=0.1, warmup=4)
    rates = [learning_rate(config, step, 24) for step in range(25)]
    assert rates[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert rates[14] == pytest.approx(0.15) and rates[24] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_tensorboard_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    with pytest.raises(JiioError, match=r"extra 'log'.*pip install 'jiio\[log\]'"):
        run(config_of("a", loggers=[{"name": "Tensorboard"}]))
    assert not Path("a").exists()


def test_tensorboard_gets_every_figure_of_every_step(monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

        close = flush

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    run(config_of("a", loggers=[{"name": "Tensorboard"}]))
    assert written[0] == (str(Path("a/tensorboard")), 0)
    assert written[1:] == [(n, s) for s in range(40) for n in ("loss", "gradient_norm", "rate", "brightness")]


class Stateful(nn.Module):
    """Buffers, an integer, an unused parameter and two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64).t())  # not contiguous
        self.tied = self.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        self.count += 1
        return x @ self.weight @ self.tied


class StatefulToy(toy.ToyTask):
    def model(self):
        return Stateful()

    def loss(self, model, step):
        return super().loss(nn.Sequential(nn.Flatten(), model), step)[0], {}


def test_every_kind_of_state_survives():
    config = config_of("whole")
    run(config, task=StatefulToy(config))
    cut = config_of("cut")
    with pytest.raises(TrainingInterrupted), stopped(StatefulToy, 13, presses):
        run(cut, task=StatefulToy(cut))
    run(cut, resume=True, task=StatefulToy(cut))
    assert_same_training("whole", "cut")
    assert int(load(Path("cut")).tensors["model.count"]) == 40


def test_a_checkpoint_is_read_whatever_the_length_of_its_header(tmp_path):
    """The first byte of a safetensors file is the lowest of that length, and 0x80 is how a pickle begins."""
    firsts = set()
    for extra in range(0, 256, 8):
        path = tmp_path / f"{extra}.safetensors"
        save(path, 3, RestoreConfig(output="o" * (1 + extra)), nn.Linear(2, 2))
        firsts.add(path.read_bytes()[0])
        assert load(path).step == 3
    assert 0x80 in firsts and len(firsts) == 32
