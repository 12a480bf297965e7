"""The benchmarks' frame: every script answers --help, and finished figures are kept, gone on from, or refused."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from jiio.outputs import atomic
from jiio.tasks.frame.files import InputError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
SCRIPTS = [path for path in FILES if "__main__" in path.read_text(encoding="utf-8")]


def module(path: Path) -> ModuleType:
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


@pytest.fixture(autouse=True)
def root_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python -m benchmarks...`` has it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])


@pytest.fixture
def rows() -> Any:
    return importlib.import_module("benchmarks.rows")


@pytest.fixture
def frame() -> Callable[..., int]:
    """A benchmark of two figures; ``made`` notes what was measured."""
    harness = importlib.import_module("benchmarks.harness")

    def run(made: list[str], *argv: str, stop: bool = False) -> int:
        def measure(name: str) -> dict[str, float]:
            if stop and name == "b":
                raise KeyboardInterrupt
            made.append(name)
            return {"figure": math.inf}

        def body(options: Any, rows: Any) -> None:
            torch.set_num_threads(1)
            for name in options.sets:
                rows.each(name, measure, name)

        parser = harness.Parser("What?", str(ROOT / "benchmarks" / "engine" / "what.py"), seeds=1, fast={"steps": 2})
        parser.number("--steps", 9, "training steps")
        parser.chosen("--sets", ["a", "b"], ["a", "b", "c"], "sets")
        return harness.main(parser, body, argv)

    return run


# -- the scripts


def test_there_are_scripts_in_every_room() -> None:
    assert {path.parent.name for path in SCRIPTS} == {
        "engine",
        "attacks",
        "restore",
        "generate",
        "language",
        "mutants",
        "pages",
        "gpu",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_everything_imports_and_says_what_it_is(path: Path) -> None:
    assert (module(path).__doc__ or "").strip()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_says_the_command_and_the_minutes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = module(path)
    with pytest.raises(SystemExit) as end:
        script.command(["--help"])
    told, name = capsys.readouterr().out, script.__name__.removesuffix(".__main__")
    head = told.partition("options:")[0]
    assert end.value.code == 0 and f"usage: python -m {name} " in head
    assert head.count(f"python -m {name}") > 1 and "minute" in head


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CITED = {
    (match[1], match[2])
    for path in PAGES
    for match in re.finditer(r"python -m (benchmarks(?:\.[a-z_]+){2})([^`\n]*)`", path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize(("name", "options"), sorted(CITED))
def test_commands_that_the_pages_cite_exist(name: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(name).command(["--help"])
    told = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", options):
        assert f"  {option}" in told, f"{name} has no {option}"


# -- figures that are kept


def test_a_stopped_run_goes_on_by_the_same_command(frame: Callable[..., int], tmp_path: Path) -> None:
    made: list[str] = []
    command = ["--output", str(tmp_path / "a.json")]
    assert frame(made, *command, stop=True) == 130 and made == ["a"]
    assert frame(made, *command) == 0 and made == ["a", "b"]
    assert frame(made, *command, "--sets", "b", "c") == 0 and made == ["a", "b", "c"]

    content = json.loads((tmp_path / "a.json").read_text())
    assert set(content["rows"]) == {"a", "b", "c"} and content["rows"]["a"] == {"figure": "never"}
    assert content["settings"] == {"benchmark": "benchmarks.engine.what", "fast": False, "steps": 9}
    assert content["command"][0] == "python -m benchmarks.engine.what" and content["wall_seconds"] >= 0.0


def test_figures_of_other_settings_are_refused(
    frame: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    path = tmp_path / "a.json"
    assert frame(made, "--output", str(path)) == 0
    before = path.read_bytes()
    capsys.readouterr()
    for words, told in ((["--steps", "8"], ("steps 8", "steps 9")), (["--fast"], ("fast True", "fast False"))):
        assert frame(made, "--output", str(path), *words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and all(word in said for word in (*told, "--output", "Name another file"))
    assert made == ["a", "b"] and path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"settings": {}}', '{"settings": 1, "rows": []}'])
def test_files_of_something_else_are_refused(rows: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match="--output"):
        rows.Rows({"steps": 1}, path)
    assert path.read_text() == text


@pytest.mark.parametrize("word", ["-3", "0", "nan", "soon"])
def test_a_time_is_above_zero(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        importlib.import_module("benchmarks.gpu.__main__").command(["--budget", word])
    assert end.value.code == 2 and f"expected a number above zero, got {word!r}" in capsys.readouterr().err


def test_a_list_of_faults_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        importlib.import_module("benchmarks.mutants.runner").command(["nolist"])
    assert end.value.code == 2 and "attacks" in capsys.readouterr().err


def test_fast_changes_defaults_and_not_what_is_asked_for(frame: Callable[..., int], tmp_path: Path) -> None:
    for words, steps in ((["--fast"], 2), (["--fast", "--steps", "5"], 5), ([], 9)):
        path = tmp_path / f"{steps}.json"
        assert frame([], "--output", str(path), *words) == 0
        assert json.loads(path.read_text())["settings"]["steps"] == steps


def test_figures_come_back_as_they_went(rows: Any, tmp_path: Path) -> None:
    row = {"a": math.inf, "b": math.nan, "c": None, "d": (1, torch.tensor([1.5])), 7: "word", "e": {"f": [True]}}
    for path in (None, tmp_path / "a.json"):
        for found in (rows.Rows({}, path), rows.Rows({}, path)):
            back = found.each("key", lambda: row)
            assert back["a"] == math.inf and math.isnan(back["b"]) and back["c"] is None
            assert back["d"] == [1, [1.5]] and back["7"] == "word" and back["e"] == {"f": [True]}
            back["e"]["f"].append(False)  # a copy, so that the file stays as it was measured
            assert found.each("key", lambda: row)["e"] == {"f": [True]}


def test_a_write_that_fails_leaves_the_whole_file(rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows.Rows({}, tmp_path / "a.json")
    found.each("a", lambda: 1)
    before = (tmp_path / "a.json").read_bytes()

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        found.each("b", lambda: 2)
    assert (tmp_path / "a.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_nothing_new_begins_when_the_time_is_over(rows: Any) -> None:
    found = rows.Rows({})
    found.each("a", lambda: 1)
    assert found.late("b", 0.0) and not found.late("a", 0.0) and not found.late("b", 10.0)


# -- what the figures are put together by


def test_lines_over_seeds() -> None:
    tables = importlib.import_module("benchmarks.tables")
    rows = [
        {"way": "a", "seed": 0, "x": 1.0, "y": 5},
        {"way": "b", "seed": 0, "x": math.inf, "y": 1, "word": "not a figure"},
        {"way": "a", "seed": 1, "x": 3.0, "y": 4},
        {"way": "a", "seed": 2, "x": 2.0, "y": math.nan},
    ]
    assert tables.over_seeds(rows, "way") == [
        {"way": "a", "x": "2 (1 to 3)", "y": "-"},
        {"way": "b", "x": "never", "y": "1"},
    ]


def test_arrival_is_the_first_point_from_which_a_sample_stays() -> None:
    arrivals = importlib.import_module("benchmarks.arrivals")
    values = torch.tensor([[9.0, 1.0, 9.0], [1.0, 9.0, 9.0], [9.0, 1.005, 9.0], [1.0, 1.0, 9.0]])  # (T, B)
    own = torch.arange(4)[:, None].expand(4, 3) * 10
    assert arrivals.arrival(own, values, torch.ones(3)).tolist() == [30.0, 20.0, math.inf]


def test_a_descent_by_steps_follows_the_schedule_of_torch() -> None:
    trainings = importlib.import_module("benchmarks.trainings")
    weights = [torch.nn.Parameter(torch.tensor([2.0, -1.0])) for _ in range(2)]
    loss = [lambda step, w=w: (w - step).square().sum() for w in weights]
    done = trainings.descend([weights[0]], loss[0], trainings.Course(trainings.half_cosine(0.1)), trainings.Steps(7))

    optimiser = torch.optim.Adam([weights[1]], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 7)
    for step in range(7):
        optimiser.zero_grad()
        loss[1](step).backward()
        torch.nn.utils.clip_grad_norm_([weights[1]], 1.0)
        optimiser.step()
        schedule.step()
    assert done.steps == 7 and torch.allclose(weights[0], weights[1], atol=1e-6, rtol=0.0)
