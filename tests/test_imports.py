"""Imports go one way: jiio <- attacks <- tasks, and in jiio from the checks up to the models."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["jiio", "attacks", "tasks"]
# A module of jiio may import from the lines above its own.
ORDER = [
    ("checks",),
    ("layout",),
    ("prox", "rules", "solution"),
    ("constraints",),
    ("intersection",),
    ("problem",),
    ("operators",),
    ("solvers",),
    ("iterate",),
    ("adjoints",),
    ("solve",),
    ("diagnostics",),
    ("models",),
]


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it stands at the top of the file) of everything that a file imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from . import name` may name a module
            names = [f"{base}.{alias.name}" for alias in node.names] if not node.module else [base]
            yield from ((name, top) for name in names)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room):
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    for path in sources(room):
        for name, _ in imported(path):
            assert name.partition(".")[0] not in later, f"{path} imports {name}"


def test_the_library_never_imports_its_tests_or_benchmarks():
    for room in ROOMS:
        for path in sources(room):
            for name, _ in imported(path):
                assert name.partition(".")[0] not in {"tests", "benchmarks", "pytest", "hypothesis"}, f"{path}: {name}"


def test_jiio_imports_torch_alone():
    for path in sources("jiio"):
        for name, top in imported(path):
            first = name.partition(".")[0]
            allowed = first in {"torch", "jiio", "__future__"} or first in sys.stdlib_module_names
            assert allowed or (first == "safetensors" and not top), f"{path} imports {name}"


def test_the_order_inside_jiio():
    level = {name: i for i, names in enumerate(ORDER) for name in names}
    for path in sources("jiio"):
        own = path.relative_to(ROOT / "jiio").with_suffix("").parts[0]
        if own == "__init__":
            continue
        assert own in level, f"{path}: give the module its place in ORDER"
        for name, _ in imported(path):
            parts = name.split(".")
            if parts[0] == "jiio" and len(parts) > 1 and parts[1] != own:
                assert parts[1] in level, f"{path} imports {name}"
                assert level[parts[1]] < level[own], f"{path} imports {name}, which comes after it"


def test_importing_jiio_loads_torch_and_the_standard_library_only():
    script = (
        "import sys, torch; before = set(sys.modules); import jiio;"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    new = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "jiio" in new
    assert set(new) - {"jiio", "torch"} <= set(sys.stdlib_module_names)


def test_the_command_line_answers_without_torch():
    script = (
        "import sys; from tasks.cli import main; code = main(['--help']);"
        "assert code == 0 and 'torch' not in sys.modules and 'jiio' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "train", "evaluate", "doctor"))
