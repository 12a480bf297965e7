"""The imports of the house as a graph: every import, late ones and those for types included, and what rooms say.

A node is a file. An arrow goes from the file to each file that it imports; a name that a room or a table says as a
string, ".task:Classify" or "jiio:Anderson", is an arrow of the room's ``__init__`` as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = {"jiio.attacks": ROOT / "attacks", "jiio.tasks": ROOT / "tasks", "jiio": ROOT / "jiio"}
SPOKEN = re.compile(r"^(\.[\w.]*|[a-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*$")
LOADED = re.compile(r"^jiio(?:\.\w+){2,}$")  # "jiio.tasks.frame.loop" in a string: importlib will be handed it


def files() -> dict[str, Path]:
    """module -> file, of the three packages and the benchmarks."""
    found: dict[str, Path] = {}
    for name, home in {**HOMES, "benchmarks": ROOT / "benchmarks"}.items():
        for path in sorted(home.rglob("*.py")):
            inside = path.relative_to(home)
            if name == "jiio" and inside.parts[0] in ("attacks", "tasks"):
                continue  # the links
            found[".".join([name, *inside.with_suffix("").parts]).removesuffix(".__init__")] = path
    return found


def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """module -> the modules that it imports or speaks of."""
    return {name: set(_targets(name, path, modules)) - {name} for name, path in modules.items()}


def _targets(name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    stub = path.with_suffix(".pyi")
    if stub.exists():  # the door of jiio: its names are loaded from where the stub says
        tree.body += ast.parse(stub.read_text(encoding="utf-8")).body
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            for alias in node.names:  # a name may be a module
                found = f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base
                if found in modules:
                    yield found
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if match := SPOKEN.match(node.value):
                found = _absolute(match[1], package)
            else:
                found = node.value if LOADED.match(node.value) else ""
            if found in modules:
                yield found


def _absolute(spelled: str, package: str) -> str:
    """``..maps.base`` as seen from a package."""
    inside = spelled.lstrip(".")
    up = len(spelled) - len(inside)
    if not up:
        return inside
    above = package.split(".")[: len(package.split(".")) - up + 1]
    return ".".join([*above, *([inside] if inside else [])])


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for to in sorted(graph[node]):
            if to not in index:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in stack:
                low[node] = min(low[node], index[to])
        if low[node] == index[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                found.append(sorted(ring))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def room(module: str) -> str:
    """The room that a module stands in: of tasks the folder, else the package; ``__main__`` is a door of its own."""
    parts = module.split(".")
    if module.startswith("jiio.tasks"):
        return ".".join(parts[:3]) if len(parts) > 2 else "jiio.tasks"
    if module == "jiio.__main__":
        return module
    return "jiio.attacks" if module.startswith("jiio.attacks") else parts[0]
