"""Tables for the terminal and files of figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jiio.outputs.tables import finite, table, write


def test_words_stand_left_and_figures_right_under_their_heads() -> None:
    rows: list[dict[str, str | float]] = [
        {"method": "joint", "picture": "a.png", "PSNR": 31.25, "steps": 9.0, "share": "93.1% [90.2%, 95.4%]"},
        {"method": "non-local means", "picture": "house.png", "PSNR": float("nan"), "steps": 1234.0, "share": "4.0%"},
    ]
    assert table(rows) == (
        "method           picture     PSNR  steps                 share\n"
        "joint            a.png      31.25      9  93.1% [90.2%, 95.4%]\n"
        "non-local means  house.png    nan   1234                  4.0%"
    )


def test_the_first_column_names_its_row_and_stands_left() -> None:
    assert table([{"x radius": "0.5", "robust": "1"}, {"x radius": "12", "robust": "10"}], indent="  ") == (
        "  x radius  robust\n  0.5            1\n  12            10"
    )


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (["1,024", "7"], True),
        (["-0.5", "nan"], True),
        (["", "3"], True),
        (["never", 2.0], True),
        (["never", "soon"], False),
        (["7 dwarfs", "Snow White"], False),
        ([".5", "+1e-3"], True),
    ],
)
def test_what_counts_as_figures(cells: list[str | float], right: bool) -> None:
    lines = table([{"a": "x", "long head": cell} for cell in cells]).splitlines()
    assert (len(lines[-1]) == len(lines[0])) == right


def test_gaps_stay_empty_and_no_line_ends_in_white_space() -> None:
    text = table([{"a": "x", "b": "word"}, {"a": "y", "c": 1.5}])
    assert text == "a  b       c\nx  word\ny        1.5"


def test_files_know_no_nan(tmp_path: Path) -> None:
    rows = finite([{"a": float("nan"), "b": float("inf"), "c": 1.0, "d": "nan"}])
    write(tmp_path / "below" / "figures.json", {"rows": rows})
    assert json.loads((tmp_path / "below" / "figures.json").read_text())["rows"] == [
        {"a": None, "b": None, "c": 1.0, "d": "nan"}
    ]
