"""The pages against the figures that the benchmarks wrote: tables with a record, and whether the comparison notices."""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from jiio.tasks.frame.files import InputError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MARKED = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- figures: " in page.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def root_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python -m benchmarks...`` has it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])


@pytest.fixture
def records() -> Any:
    return importlib.import_module("benchmarks.pages.records")


@pytest.fixture
def marks() -> Any:
    return importlib.import_module("benchmarks.pages.marks")


@pytest.fixture
def command() -> Any:
    return importlib.import_module("benchmarks.pages.__main__").command


def page(folder: Path, row: str, mark: str = "<!-- figures: cost -->") -> Path:
    """Pages of one table, held against one record."""
    (folder / "results/figures").mkdir(parents=True)
    (folder / "a.md").write_text(f"# A\n\n{mark}\n\n| what | figure |\n|---|---|\n| joint 9 | {row} |\n")
    (folder / "results/figures/cost.json").write_text(json.dumps({"printed": ["joint  12.34 (1,024 to 0.256)"]}))
    return folder


# -- the pages as they are


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_tables_say_what_was_measured(path: Path, marks: Any, records: Any) -> None:
    wrong = {
        f"line {table.line}": missing
        for table in marks.tables(path)
        if table.records and (missing := marks.missing(table, records.known(table.records)))
    }
    assert not wrong


def test_every_record_is_cited_and_every_mark_has_its_record(marks: Any, records: Any) -> None:
    cited = {name for path in MARKED for table in marks.tables(path) for name in table.records}
    assert cited == {path.stem for path in records.HOME.glob("*.json")}


def test_a_figure_that_was_altered_is_noticed(marks: Any, records: Any) -> None:
    """One digit in one number of a table, all tables: more than half of such faults, and several at once always."""
    draw, one, all_at_once, every = random.Random(0), 0, 0, 0
    for table in (t for path in MARKED for t in marks.tables(path) if t.records):
        known = records.known(table.records)
        altered = [altered_digit(word, draw) for word in table.numbers]
        single = [bool(marks.missing(dataclasses.replace(table, numbers=(word,)), known)) for word in altered]
        one, every, all_at_once = one + sum(single), every + len(single), all_at_once + any(single)
    assert one > 0.5 * every > 100
    assert all_at_once == sum(bool(t.records) for path in MARKED for t in marks.tables(path))


def altered_digit(word: str, draw: random.Random) -> str:
    at = draw.choice([i for i, letter in enumerate(word) if letter.isdigit()])
    return f"{word[:at]}{(int(word[at]) + draw.randint(1, 9)) % 10}{word[at + 1 :]}"


# -- what counts as the same figure


@pytest.mark.parametrize(
    "row", ["12.34", "12.3", "12", "1,024", "26 %", "-12.3", "8/255", "[12](b-7.md)", "-", "**12.3**"]
)
def test_what_a_record_bears_out(row: str, tmp_path: Path, command: Any) -> None:
    assert command(["--docs", str(page(tmp_path, row))]) == 0


@pytest.mark.parametrize("row", ["12.35", "12.4", "13", "1,025", "27 %", "12.340001", "1.234e2"])
def test_what_it_does_not(row: str, tmp_path: Path, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--docs", str(page(tmp_path, row))]) == 1
    assert row.split()[0] in capsys.readouterr().out


def test_a_missing_record_is_said(tmp_path: Path, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--docs", str(page(tmp_path, "12", "<!-- figures: time -->"))]) == 1
    assert "no record time" in capsys.readouterr().out


def test_a_mark_belongs_to_the_next_table_only(tmp_path: Path, marks: Any) -> None:
    (path := tmp_path / "a.md").write_text("<!-- figures: a -->\n\ntext\n\n| x | y |\n|---|---|\n| 1 | 2 |\n")
    assert [table.records for table in marks.tables(path)] == [()]


# -- keeping


def test_a_record_holds_what_was_printed_and_no_places(tmp_path: Path, records: Any) -> None:
    run = {
        "command": [
            "python -m benchmarks.engine.metric",
            "--output",
            "/some/where/a.json",
            "--trees",
            "/some/where/old",
        ],
        "settings": {"steps": 3},
        "printed": ["/some/where/old: 3"],
        "rows": {"a": 7.5},
    }
    (file := tmp_path / "a.json").write_text(json.dumps(run))
    kept = json.loads(records.keep(file, "metric", tmp_path).read_text())
    assert kept["command"] == ["python -m benchmarks.engine.metric", "--trees", "old"]
    assert kept["printed"] == ["old: 3"] and "rows" not in kept
    assert records.known(["metric"], tmp_path) == [3.0]

    (file := tmp_path / "b.json").write_text(
        json.dumps({"on": "set12", "mean": [{"PSNR": 29.9}], "rows": [{"PSNR": 31.0}]})
    )
    assert "rows" not in json.loads(records.keep(file, "set", tmp_path).read_text())
    assert records.known(["set"], tmp_path) == [29.9]


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("no json", "a", "holds something else"),
        ("[]", "a", "holds something else"),
        ('{"a": "b"}', "a", "holds something else"),
        ('{"settings": {"steps": 3}, "rows": {}}', "a", "has ended"),
        ('{"a": 1}', "../a", "small letters"),
        ('{"a": 1}', "A b", "small letters"),
    ],
)
def test_what_is_no_record_is_refused(content: str, name: str, told: str, tmp_path: Path, records: Any) -> None:
    (file := tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=told):
        records.keep(file, name, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_the_command_refuses_in_a_sentence(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--keep", str(tmp_path / "none.json"), "--as", "a"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        command(["--keep", "a.json"])
    assert end.value.code == 2
