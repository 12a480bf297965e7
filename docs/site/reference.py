"""The pages of the reference: every public name of the four packages, in groups, read from the code."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import examples

ROOT = Path(__file__).parents[2]
PAGES = {"jiio": "api.md", "jiio.models": "models.md"}  # whose headings are the groups of a package
# The groups of attacks, by where a name lives: the longest beginning that fits.
ATTACKS = {
    "Attacks": ("base", "methods."),
    "Objectives": ("objectives",),
    "Evaluation": ("evaluation.", "suites", "statistics"),
    "Common corruptions": ("corruptions.",),
    "Dense prediction": ("dense.",),
    "Several views": ("views", "sources", "fusion", "methods.multiview", "methods.noise"),
    "Threats and models": ("",),
}
LEADS = {
    "jiio": "The engine. Nothing but PyTorch is needed, and nothing is loaded before it is used.",
    "jiio.models": "Equilibrium networks, energies of images, transformers, and models with a certificate.",
    "jiio.attacks": "Adversarial evaluation of classifiers, equilibrium networks above all.",
    "jiio.tasks": "Recipes, data and trained restorers from Python.",
}


@dataclass(frozen=True)
class Group:
    """Names of one package that stand on a page."""

    package: str
    title: str
    names: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of the page, without a suffix."""
        words = re.sub(r"\W+", "-", self.title.lower()).strip("-")
        return f"{self.package.replace('.', '-')}-{words}"


def groups() -> list[Group]:
    """Every public name of the four packages, each once in its package."""
    found = [group for package in PAGES for group in from_page(package)]
    found += from_homes()
    found.append(Group("jiio.tasks", "Tasks", tuple(sorted(public("jiio.tasks")))))
    for package in LEADS:
        here = [name for group in found if group.package == package for name in group.names]
        if sorted(here) != sorted(public(package)):
            raise ValueError(f"the reference of {package} differs from its public names: {set(here) ^ public(package)}")
    return found


def public(package: str) -> set[str]:
    """The public names of a package; sub-packages, which have pages of their own, left out."""
    module = importlib.import_module(package)
    return {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}


def from_page(package: str) -> list[Group]:
    """The groups of a package as its page has them."""
    text = (ROOT / "docs" / PAGES[package]).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    names = {
        title: re.findall(r"^- `(\w+)", body, re.MULTILINE) for title, body in zip(parts[::2], parts[1::2], strict=True)
    }
    wanted = public(package)
    return [
        Group(package, title, kept) for title, all_ in names.items() if (kept := tuple(n for n in all_ if n in wanted))
    ]


def from_homes() -> list[Group]:
    """The groups of jiio.attacks."""
    homes = importlib.import_module("jiio.attacks")._HOME
    begins = sorted(((start, title) for title, starts in ATTACKS.items() for start in starts), key=lambda b: -len(b[0]))
    found: dict[str, list[str]] = {title: [] for title in ATTACKS}
    for name in sorted(public("jiio.attacks")):
        home = homes.get(name, "")
        found[next(title for start, title in begins if home.startswith(start))].append(name)
    return [Group("jiio.attacks", title, tuple(names)) for title, names in found.items()]


def write(folder: Path) -> list[str]:
    """Write the pages into a folder; the names of those that others link to, one for each package."""
    folder.mkdir()
    shown, blocks, every = examples.places(), examples.of_groups(), groups()
    for group in every:
        body = [
            group.title,
            "=" * len(group.title),
            "",
            f"Of ``{group.package}``. An example, which is run by the tests:",
            "",
        ]
        body += [line for code in blocks[group.package, group.title] for line in block(code)]
        body += [line for name in group.names for line in entry(group.package, name, shown)]
        (folder / f"{group.file}.rst").write_text("\n".join(body) + "\n", encoding="utf-8")

    for package, lead in LEADS.items():
        files = [group.file for group in every if group.package == package]
        lines = [package, "=" * len(package), "", lead, "", ".. toctree::", "   :maxdepth: 2", ""]
        (folder / f"{package}.rst").write_text("\n".join([*lines, *(f"   {f}" for f in files), ""]), encoding="utf-8")
    return list(LEADS)


def block(code: str) -> list[str]:
    """The directive that shows code."""
    return [".. code-block:: python", "", *(f"   {line}" if line else "" for line in code.rstrip().split("\n")), ""]


def entry(package: str, name: str, shown: dict[examples.Name, list[str]]) -> list[str]:
    """The directive for a name, and where it is seen at work."""
    thing = getattr(importlib.import_module(package), name)
    kind = "autoclass" if inspect.isclass(thing) else "autofunction" if callable(thing) else "autodata"
    options = {
        "autoclass": ["   :members:", "   :show-inheritance:"],
        "autodata": ["   :no-value:"],
        "autofunction": [],
    }[kind]
    if package == "jiio" and name == "EquilibriumModel":  # the same object stands in jiio.models
        options = ["   :no-index:", *options]
    places = shown.get((package, name), [])
    seen = ["Seen at work in " + ", ".join(f":doc:`/{place}`" for place in places) + ".", ""] if places else []
    return [name, "-" * len(name), "", f".. {kind}:: {package}.{name}", *options, "", *seen]
