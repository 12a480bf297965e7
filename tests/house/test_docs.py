"""The documentation against the code: names and signatures, blocks that claim to run, links, and cited tests."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import jiio
import jiio.models
from jiio.tasks.frame.load import build, flatten, read_yaml
from jiio.tasks.restore.latent import RestoreConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/results").glob("*.md"))
)
NAMES = [(module, name) for module in (jiio, jiio.models) for name in module.__all__]
API = {"jiio": "api.md", "jiio.models": "models.md"}
ALONE = ("examples.md", "examples-attacks.md")  # their blocks stand for themselves: tests/house/test_examples.py
MOST_WORDS = 2500
FENCE = re.compile(r"^```(?P<kind>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Any]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in PAGES]


def blocks(path: Path, kind: str) -> Iterator[tuple[int, str]]:
    """(line of its first line, text) of the fenced blocks of one kind."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match["kind"].strip() == kind:
            yield text.count("\n", 0, match.start("code")) + 1, match["code"]


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


# -- the API pages


def documented(module: ModuleType) -> dict[str, str]:
    """Name -> arguments between the brackets ("" where the page gives none), from the page of a module."""
    text = (ROOT / "docs" / API[module.__name__]).read_text(encoding="utf-8")
    entries = re.findall(r"^- `(\w+)(?:(\(.*\)))?`:", text, re.MULTILINE)
    assert len({name for name, _ in entries}) == len(entries)
    return dict(entries)


def has_signature(thing: Any) -> bool:
    """Whether a reader needs to know how to call it: not for bases, exceptions, enumerations and tables."""
    if not callable(thing) or inspect.isabstract(thing):
        return False
    return not (isinstance(thing, type) and issubclass(thing, (BaseException, enum.Enum)))


@pytest.mark.parametrize("module", [jiio, jiio.models], ids=lambda m: m.__name__)
def test_the_api_page_has_every_public_name_and_no_other(module: ModuleType) -> None:
    assert set(documented(module)) == set(module.__all__)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_api_page_has_the_signature(module: ModuleType, name: str) -> None:
    thing, told = getattr(module, name), documented(module).get(name, "")
    assert bool(told) == has_signature(thing)
    if not told:
        return
    function = ast.parse(f"def f{told}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    known = {name: getattr(module, name) for module in (jiio, jiio.models) for name in module.__all__}
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), API[module.__name__], "exec"), dict(known), namespace)
    page, code = inspect.signature(namespace["f"]).parameters, inspect.signature(thing).parameters
    assert [(p.name, p.kind) for p in page.values()] == [(p.name, p.kind) for p in code.values()]
    factories = {f.name: f for f in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else {}
    for key, parameter in code.items():
        expected = parameter.default
        if key in factories and factories[key].default_factory is not dataclasses.MISSING:
            expected = factories[key].default_factory()  # type: ignore[misc]
        assert page[key].default == expected, key


# -- what runs


def running() -> list[Any]:
    return [p for p in pages() if p.values[0].name not in ALONE and any(blocks(p.values[0], "python run"))]


@pytest.mark.parametrize("path", running())
def test_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in their order, in one namespace and an empty folder; warnings are errors as everywhere."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "docs"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for line, code in blocks(path, "python run"):
            # Empty lines before the code, so that a traceback names the line of the page.
            exec(compile("\n" * (line - 1) + code, str(path), "exec", dont_inherit=True), namespace)


def test_there_are_blocks_that_run() -> None:
    ran = {path.name for path in PAGES if any(blocks(path, "python run"))}
    assert ran >= {"README.md", "index.md", "choosing.md", "parts.md"}


@pytest.mark.parametrize("path", pages())
def test_other_python_blocks_are_python(path: Path) -> None:
    for line, code in blocks(path, "python"):
        compile("\n" * (line - 1) + code, str(path), "exec")


@pytest.mark.parametrize("path", pages())
def test_configurations_can_be_used(path: Path, tmp_path: Path) -> None:
    for kind in ("yaml config", "yaml defaults"):
        for _, text in blocks(path, kind):
            (tmp_path / "config.yaml").write_text(text)
            config = build(RestoreConfig, read_yaml("CONFIG", tmp_path / "config.yaml"))
            if kind == "yaml defaults":
                assert flatten(dataclasses.asdict(config)) == flatten(dataclasses.asdict(RestoreConfig()))
                written = flatten(read_yaml("CONFIG", tmp_path / "config.yaml"))
                assert written.keys() == flatten(dataclasses.asdict(RestoreConfig())).keys()


# -- what can be read in one sitting


@pytest.mark.parametrize("path", [p for p in pages() if p.values[0].name != "CHANGELOG.md"])
def test_a_page_is_not_too_long(path: Path) -> None:
    words = len(path.read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS, f"{words} words: make two pages of it"


# -- what points somewhere


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", pages())
def test_links_are_alive(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.is_relative_to(ROOT) and to.exists(), f"{path.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(to), f"{path.name} links to {target}, a heading that is not there"


@pytest.mark.parametrize("path", pages())
def test_cited_tests_exist(path: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", prose(path)):
        assert (ROOT / file).exists(), f"{path.name} cites {file}"
        if name:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{path.name} cites {file}::{name}"
