"""One direction of imports and no circles, over every import and every name that a room speaks of."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import structure

ROOT = structure.ROOT
MODULES = structure.files()
GRAPH = structure.arrows(MODULES)
# The rooms from the ground up: a room imports from the lines above its own. Rooms of one line never meet.
ROOMS = [
    ("jiio",),
    ("jiio.attacks",),
    ("jiio.tasks.frame",),
    ("jiio.tasks.images",),
    ("jiio.tasks.maps",),
    ("jiio.tasks.solving",),
    tuple(f"jiio.tasks.{name}" for name in ("restore", "classify", "generate", "meta", "language", "segment")),
    ("jiio.tasks.demo",),
    ("jiio.tasks.commands", "jiio.tasks.federate"),
    ("jiio.tasks",),
    ("jiio.tasks.cli",),
    ("jiio.__main__",),
    ("benchmarks",),
]
# A module of jiio itself may import from the lines above its own.
ORDER = [
    ("checks", "looks"),
    ("outputs",),
    ("draws",),
    ("holding", "archive"),
    ("layout",),
    ("persample",),
    ("arithmetic",),
    ("prox", "rules", "solution"),
    ("constraints",),
    ("nearest", "blocks"),
    ("intersection",),
    ("problem",),
    ("calls",),
    ("metric",),
    ("solvers",),
    ("operators",),
    ("best",),
    ("progress",),
    ("onward",),
    ("recording", "attendance"),
    ("iterate",),
    ("stages",),
    ("adjoints",),
    ("settings",),
    ("tangents",),
    ("explicit", "admission"),
    ("solving",),
    ("verdict", "sensitivity"),
    ("diagnostics",),
    ("models",),
]


def level(lines: list[tuple[str, ...]], name: str) -> int:
    """The line that a name stands on."""
    return next(i for i, names in enumerate(lines) if name in names)


def uphill(graph: dict[str, set[str]]) -> list[str]:
    """The arrows from a room to one that does not stand above it in ROOMS."""
    found = []
    for name in sorted(graph):
        for to in sorted(graph[name]):
            here, there = structure.room(name), structure.room(to)
            if here != there and level(ROOMS, there) >= level(ROOMS, here):
                found.append(f"{name} -> {to}")
    return found


def test_no_circles() -> None:
    assert structure.circles(GRAPH) == []


def test_rooms_import_one_way() -> None:
    assert uphill(GRAPH) == []


@pytest.mark.parametrize(
    ("file", "text", "ring"),
    [
        ("tasks/frame/interrupt.py", "from .logs import JsonLinesLogger", None),
        ("tasks/frame/files.py", "def f():\n    from .load import build", "jiio.tasks.frame.load"),
        ("tasks/frame/files.py", "if TYPE_CHECKING:\n    from . import load", "jiio.tasks.frame.load"),
        ("tasks/frame/files.py", "LATER = 'jiio.tasks.frame.load'", "jiio.tasks.frame.load"),
        ("tasks/maps/base.py", "CHOICES = {'corruption': '.corruption:BoxHole'}", "jiio.tasks.maps.corruption"),
    ],
)
def test_the_checker_sees_a_planted_circle(file: str, text: str, ring: str | None, tmp_path: Path) -> None:
    copy = tmp_path / Path(file).name
    copy.write_text(f"{(ROOT / file).read_text()}\n\n{text}\n")
    name = "jiio." + ".".join(Path(file).with_suffix("").parts)
    found = structure.circles(structure.arrows(MODULES | {name: copy}))
    assert (ring is None) == (found == [])
    assert ring is None or any({ring, name} <= set(circle) for circle in found)


def test_the_checker_sees_an_arrow_uphill(tmp_path: Path) -> None:
    copy = tmp_path / "files.py"
    copy.write_text("def late():\n    from jiio.tasks.restore.tiles import TILE\n")
    graph = structure.arrows(MODULES | {"jiio.tasks.frame.files": copy})
    assert uphill(graph) == ["jiio.tasks.frame.files -> jiio.tasks.restore.tiles"]


def imported(path: Path) -> set[str]:
    """The first parts of what a file imports absolutely."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not name.startswith("benchmarks")))
def test_the_library_never_imports_its_tests_or_benchmarks(name: str) -> None:
    assert not imported(MODULES[name]) & {"tests", "benchmarks", "pytest", "hypothesis", "tasks", "attacks"}


def test_jiio_imports_torch_alone() -> None:
    for name, path in MODULES.items():
        if structure.room(name) == "jiio":
            others = imported(path) - {"torch", "jiio", "__future__"} - sys.stdlib_module_names
            assert others <= {"safetensors"}, f"{path} imports {others}"
            top = {
                alias.name
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert not any(word.startswith("safetensors") for word in top), (
                f"{path} loads safetensors before it is used"
            )


def test_the_order_inside_jiio() -> None:
    for name in GRAPH:
        own = name.split(".")[1:2]
        if structure.room(name) != "jiio" or not own:
            continue
        for to in GRAPH[name]:
            other = to.split(".")[1:2]
            assert other and (other == own or level(ORDER, other[0]) < level(ORDER, own[0])), f"{name} imports {to}"


def run(script: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own."""
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)


def test_importing_jiio_loads_the_standard_library_alone() -> None:
    done = run("import sys; before = set(sys.modules); import jiio; print(*sorted(set(sys.modules) - before))")
    new = {name.partition(".")[0] for name in done.stdout.split()}
    assert "jiio" in new and new - {"jiio"} <= set(sys.stdlib_module_names), done.stderr
    assert not [name for name in done.stdout.split() if name.startswith("jiio.")]


def test_a_name_of_jiio_loads_torch_and_the_standard_library_only() -> None:
    script = (
        "import sys, torch; before = set(sys.modules); from jiio import *; print(*sorted(set(sys.modules) - before))"
    )
    new = {name.partition(".")[0] for name in run(script).stdout.split()}
    assert "jiio" in new and new - {"jiio", "torch"} <= set(sys.stdlib_module_names)


def test_the_command_line_answers_without_torch() -> None:
    done = run(
        "import sys; from jiio.tasks.cli import main; assert main(['--help']) == 0 and 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "train", "evaluate", "doctor"))


def test_the_door_of_tasks_opens_on_every_name() -> None:
    from jiio import tasks

    assert sorted(tasks.__all__) == sorted(tasks._HOME)
    assert all(callable(getattr(tasks, name)) for name in tasks.__all__)
    with pytest.raises(AttributeError, match=r"jiio\.tasks"):
        _ = tasks.nothing
