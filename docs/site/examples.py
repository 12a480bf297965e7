"""The code of the documentation that tests run: which public names it uses, and the example of each group of names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("jiio", "jiio.models", "jiio.attacks", "jiio.tasks")
PAGES = ("examples", "examples-attacks")  # headings `## PACKAGE: GROUP`, under each one block or more
BLOCK = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Name = tuple[str, str]  # package, name


def of_groups() -> dict[Name, list[str]]:
    """(package, title of the group) -> the blocks of its example."""
    found: dict[Name, list[str]] = {}
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            head, body = part.split("\n", 1)
            package, _, title = head.partition(": ")
            found[package, title] = BLOCK.findall(body)
    return found


def places() -> dict[Name, list[str]]:
    """(package, name) -> the pages of the site whose code uses it; the pages of examples apart."""
    found: dict[Name, list[str]] = {}
    for place, code in running():
        for name in used(code):
            if place not in found.setdefault(name, []):
                found[name].append(place)
    return found


def running() -> Iterator[tuple[str, str]]:
    """(page of the site, code): the blocks of a page, the scripts of the gallery, the tutorials."""
    docs = ROOT / "docs"
    for page in (*sorted(docs.glob("*.md")), ROOT / "CONTRIBUTING.md"):
        if page.stem not in PAGES:
            yield page.stem, "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    for folder, place in (("gallery", "gallery"), ("tutorials", "read/{}")):
        for script in sorted((docs / folder).glob("*.py")):
            if script.stem not in ("show", "notebooks"):
                yield place.format(script.stem), script.read_text(encoding="utf-8")


def used(code: str) -> set[Name]:
    """The public names that code imports, or takes from a package that it has imported."""
    tree, found, known = ast.parse(code), set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in PACKAGES}
        elif isinstance(node, ast.ImportFrom) and node.module in PACKAGES:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in PACKAGES:
                    known[alias.asname or alias.name] = whole
                found.add((node.module, alias.name))

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            package = ast.unparse(node.value)
            found.add((known.get(package, package), node.attr))
    return {(package, name) for package, name in found if package in PACKAGES}
