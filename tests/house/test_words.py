"""One word for one thing: no two public classes of the house share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import structure

# Name -> why two classes may have it.
SHARED: dict[str, str] = {}


def public_classes(modules: dict[str, Path]) -> dict[str, list[str]]:
    """Class -> the modules that define it at their top, of jiio, attacks and tasks; benchmarks stand for themselves."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, path in sorted(modules.items()):
        if module.partition(".")[0] == "jiio":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(module)
    return found


def doubles(modules: dict[str, Path]) -> dict[str, list[str]]:
    """Those that stand in more than one module."""
    return {name: homes for name, homes in public_classes(modules).items() if len(homes) > 1}


def test_no_two_public_classes_share_a_name() -> None:
    found = doubles(structure.files())
    assert {name: homes for name, homes in found.items() if name not in SHARED} == {}
    assert set(SHARED) <= set(found)  # an exception that is not needed any more goes


def test_the_checker_sees_a_planted_double(tmp_path: Path) -> None:
    copy = tmp_path / "kernels.py"
    copy.write_text("class LinearMap:\n    pass\n\n\nclass _Axis:\n    pass\n")
    found = doubles(structure.files() | {"jiio.tasks.maps.kernels": copy})
    assert found["LinearMap"] == ["jiio.tasks.maps.base", "jiio.tasks.maps.kernels"] and "_Axis" not in found
