"""How the code reads, as far as it can be counted: length of files and functions, room and comments in long ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import structure

HOMES = ("jiio", "attacks", "tasks", "benchmarks")
LONG = 15  # lines from which on a function needs room to breathe


def sources(home: str) -> list[Path]:
    """The files of a home; what the links in jiio show belongs to its own."""
    inside = f"jiio.{home}" if home in ("attacks", "tasks") else home
    others = ("jiio.attacks", "jiio.tasks") if home == "jiio" else ()
    return [
        p for name, p in structure.files().items() if name.startswith(inside) and not name.startswith(others or " ")
    ]


def functions(path: Path) -> Iterator[list[str]]:
    """The lines of every function, its docstring left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = range(0)
            if ast.get_docstring(node, clean=False) is not None:
                told = range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
            yield [lines[i - 1] for i in range(node.lineno, (node.end_lineno or 0) + 1) if i not in told]


@pytest.mark.parametrize("home", HOMES)
def test_no_file_is_over_300_lines(home: str) -> None:
    long = {path.name: n for path in sources(home) if (n := len(path.read_text().splitlines())) > 300}
    assert not long


def test_no_test_file_is_over_400_lines() -> None:
    tests = (structure.ROOT / "tests").rglob("*.py")
    assert not {path.name: n for path in tests if (n := len(path.read_text().splitlines())) > 400}


@pytest.mark.parametrize("home", HOMES)
def test_95_of_100_functions_have_at_most_20_lines(home: str) -> None:
    lengths = [len(lines) for path in sources(home) for lines in functions(path)]
    assert sum(n <= 20 for n in lengths) >= 0.95 * len(lengths) > 100


@pytest.mark.parametrize("home", HOMES)
def test_long_functions_breathe(home: str) -> None:
    """6 of 100 lines are blank, and 6 carry a comment."""
    lines = [line for path in sources(home) for one in functions(path) if len(one) >= LONG for line in one]
    assert sum(not line.strip() for line in lines) >= 0.06 * len(lines)
    assert sum("#" in line for line in lines) >= 0.06 * len(lines)
