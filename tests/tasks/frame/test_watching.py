"""What a training says while it runs: lines where there is no terminal, loggers of services, more steps."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

import toy
from jiio.checks import JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.interrupt import TrainingInterrupted
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.progress import Lines, duration
from loop_cases import config_of, interrupted, run


@pytest.fixture(autouse=True)
def with_toy(monkeypatch, tmp_path):
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)


def test_a_line_every_half_minute_with_the_pace_and_what_is_left() -> None:
    now, said = [0.0], []
    lines = Lines("prior", 1000, 200, said.append, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 4.0 if len(said) < 2 else 40.0
        lines.step({"loss": 0.125})
    assert said[0] == "prior: step 208 of 1000, loss 0.125, 4 s a step, 53 min left"
    assert said[1].startswith("prior: step 216 of")  # 32 s after the one before
    assert said[2] == "prior: step 217 of 1000, loss 0.125, 40 s a step, 8.7 h left"
    assert len(said) == 2 + 84


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_training_without_a_terminal_says_lines(monkeypatch) -> None:
    monkeypatch.setattr("jiio.tasks.frame.progress.EVERY", 0.0)
    said: list[str] = []
    train(config_of("a"), report=said.append)
    assert len(said) == 40 and said[-1].startswith("toy: step 40 of 40, loss 0.")


# -- services


class Service(types.ModuleType):
    """A stand-in for the module of a service: it remembers what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[tuple] = []
        self.count = 0

    def begun(self, known: str | None) -> str:
        self.count += known is None
        return known or f"run-{self.count}"

    # Weights & Biases
    def init(self, *, project, name, id, resume, dir):
        self.told.append(("init", project, name, id, resume, Path(dir).name))
        run = types.SimpleNamespace(id=self.begun(id))
        run.log = lambda figures, step: self.told.append(("log", step, figures["loss"]))
        run.finish = lambda: self.told.append(("finish",))
        return run

    # MLflow
    def set_experiment(self, name):
        self.told.append(("experiment", name))

    def start_run(self, *, run_id, run_name):
        self.told.append(("start", run_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=self.begun(run_id)))

    def log_metrics(self, figures, step):
        self.told.append(("log", step, figures["loss"]))

    def end_run(self):
        self.told.append(("finish",))


SERVICES = {
    "wandb": ("WandB", {"project": "deq", "name": "first"}),
    "mlflow": ("MLflow", {"experiment": "deq", "name": "first"}),
}


@pytest.mark.parametrize("module", sorted(SERVICES))
def test_a_service_gets_every_figure_and_knows_a_resumed_training_again(module: str, monkeypatch) -> None:
    service = Service(module)
    monkeypatch.setitem(sys.modules, module, service)
    name, options = SERVICES[module]
    config = config_of("a", loggers=[{"name": name, "options": options}])
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 20)
    run(config, resume=True)

    begun = [one for one in service.told if one[0] in ("init", "start")]
    assert (
        begun
        == {
            "wandb": [("init", "deq", "first", None, None, "a"), ("init", "deq", "first", "run-1", "allow", "a")],
            "mlflow": [("start", None, "first"), ("start", "run-1", None)],
        }[module]
    )
    logged = {step: loss for kind, step, loss in (one for one in service.told if one[0] == "log")}
    lines = [json.loads(line) for line in Path("a/log.jsonl").read_text().splitlines()]
    assert logged == {line["step"]: line["loss"] for line in lines}
    assert [one[0] for one in service.told].count("finish") == 2
    assert Path(f"a/run-of-{module}.txt").read_text() == "run-1"


@pytest.mark.parametrize("module", sorted(SERVICES))
def test_a_service_that_is_not_installed_is_a_sentence(module: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JiioError, match=f"loggers: .* needs {module} .*pip install {module}"):
        run(config_of("a", loggers=[{"name": SERVICES[module][0], "options": {}}]))
    assert not Path("a").exists()


# -- more steps


@pytest.mark.parametrize("finished", [True, False])
def test_a_training_goes_on_to_more_steps(finished: bool) -> None:
    if finished:
        run(config_of("a"))
    else:
        with pytest.raises(TrainingInterrupted):
            interrupted(config_of("a"), 20)
    said: list[str] = []
    assert train(config_of("a", steps=50), resume=True, report=said.append).step == 50
    assert any("40 steps were planned, 50 are now" in line for line in said)
    assert not any("bit for bit" in line for line in said)

    lines = [json.loads(line) for line in Path("a/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50))
    assert lines[-1]["rate"] < 1e-4 < lines[40]["rate"]  # the schedule of 50 steps
    assert load(Path("a/weights.safetensors")).step == 50


def test_the_folder_stands_for_its_configuration(capsys) -> None:
    run(config_of("a"))
    assert main(["train", "a", "--resume", "--steps", "44"]) == 0
    assert "Trained 44 steps; weights in a/weights.safetensors." in capsys.readouterr().err
    assert main(["train", "a", "--steps", "50"]) == 2
    assert "CONFIG: expected a YAML file, got the folder a. Pass --resume" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["train", "empty", "--resume"]) == 2
    assert "CONFIG: expected the folder of a training, got empty, without a checkpoint." in capsys.readouterr().err


def test_parts_in_turn_are_part_of_the_configuration() -> None:
    with pytest.raises(JiioError, match="accumulate: expected a whole number of at least 1"):
        config_of("a", accumulate=0)
