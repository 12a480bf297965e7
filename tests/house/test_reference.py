"""What the reference tells of every public name: its arguments, its errors, and code that uses it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest
from parts_of_site import part

from jiio.checks import ArgumentError, ArgumentTypeError, CellError, JiioError, check_choice, check_integer, fail

telling, faults, examples, reference = (part(name) for name in ("telling", "faults", "examples", "reference"))
GROUPS = reference.groups()
NAMES = [(group.package, name) for group in GROUPS for name in group.names]
PLACES, BLOCKS = examples.places(), examples.of_groups()


def thing_of(package: str, name: str) -> Any:
    return getattr(importlib.import_module(package), name)


def params(*, functions: bool) -> list[Any]:
    """The public functions, or the public classes that are no exceptions."""
    things = [(package, name, thing_of(package, name)) for package, name in NAMES]
    kept = [t for t in things if (inspect.isfunction(t[2]) if functions else inspect.isclass(t[2]))]
    return [
        pytest.param(thing, id=f"{package}.{name}")
        for package, name, thing in kept
        if functions or not issubclass(thing, (BaseException, int))
    ]


# -- arguments


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda v: v)
def test_every_argument_is_explained(package: str, name: str) -> None:
    thing = thing_of(package, name)
    missing = telling.unmentioned(thing) if callable(thing) else []
    assert not missing, f"write `{missing[0]}: what it is` into the docstring, or into that of its base"


@pytest.mark.parametrize("cls", params(functions=False))
def test_every_argument_of_a_method_is_explained(cls: Any) -> None:
    missing = {name: left for name in telling.members(cls) if (left := telling.unmentioned_by(cls, name))}
    assert not missing, f"write `argument: what it is` into the docstrings: {missing}"


class Base:
    """size, weight: how large."""

    def __init__(self, size: int, weight: int) -> None: ...

    def move(self, here: int, there: int) -> None:
        """From here."""


class Child(Base):
    """The fields are those of its base. shape: any."""

    def __init__(self, size: int, weight: int, shape: int, speed: float) -> None: ...

    def move(self, here: int, there: int, shape: int) -> None:
        """Anywhere."""


def cook(size: int, heat: float, time: int, speed: float) -> None:
    """Cook. time: minutes. heat: as in :class:`Child`. Others as in :func:`eat`."""


def eat(speed: float, cook: int) -> None:
    """speed: forks per minute, of which one is a spoon.

    cook: whose.
    """


Base.__module__ = Child.__module__ = cook.__module__ = eat.__module__ = "jiio.kitchen"


def test_what_a_docstring_leaves_out_comes_from_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    assert telling.borrowed(Child) == [(Base, {"size": "how large.", "weight": "how large."})]
    assert telling.unmentioned(Child) == ["speed"]
    assert list(telling.added(Child))[:3] == ["From ``Base``:", "", "- ``size, weight``: how large."]

    # What it refers to: for arguments that it says nothing of, and for no others.
    module = ModuleType("jiio.kitchen")
    vars(module).update(Child=Child, eat=eat)
    monkeypatch.setitem(__import__("sys").modules, "jiio.kitchen", module)
    assert telling.borrowed(cook) == [
        (Base, {"size": "how large."}),
        (eat, {"speed": "forks per minute, of which one is a spoon."}),
    ]
    assert not telling.unmentioned(cook) and not telling.unmentioned(eat)
    assert telling.unmentioned_by(Child, "move") == ["there"]


# -- errors


@pytest.mark.parametrize("function", params(functions=True))
def test_a_function_names_the_errors_that_it_raises(function: Any) -> None:
    """Itself, by a base, or by reference to another ("Raises as :func:`solve` does")."""
    text = telling.words(function)
    if "Raises as :func:`" in text:
        text += telling.words(telling.resolved(function, text.split("Raises as :func:`")[1].split("`")[0]))
    for error in faults.raised(function):
        names = [base.__name__ for base in error.__mro__ if issubclass(base, JiioError)]
        assert any(name in text for name in names), f"it raises {names[0]}: say when"


UNCHECKED = ("TransformerConfig-cutoffs", "TrellisConfig-cutoffs")  # what is no sequence gets Python's own error
ELSEWHERE = "jiio.tasks."  # whose configurations have their types checked where they are read


def trials() -> list[Any]:
    """Records all of whose fields have defaults, with each of the fields."""
    found = []
    for param in params(functions=False):
        thing = param.values[0]
        if dataclasses.is_dataclass(thing) and not inspect.isabstract(thing) and not param.id.startswith(ELSEWHERE):
            signature = inspect.signature(param.values[0]).parameters.values()
            if all(p.default is not p.empty for p in signature):
                found += [pytest.param(thing, p.name, id=f"{param.id}-{p.name}") for p in signature]
    return [param for param in found if not param.id.endswith(UNCHECKED)]


@pytest.mark.parametrize(("cls", "argument"), trials())
def test_what_a_constructor_raises_is_what_its_page_names(cls: Any, argument: str) -> None:
    try:
        cls(**{argument: object()})
    except JiioError as error:
        assert type(error) in faults.raised(cls)
        page = "\n".join(telling.added(cls)) + telling.words(cls)
        assert type(error).__name__ in page
        assert argument in str(error)


def checked(size: int, kind: str) -> None:
    check_integer("size", size, 1)
    helper(kind)


def helper(kind: str) -> None:
    if not kind:
        fail("kind", "a word", kind, error=CellError)
    helper(kind)


def harmless(kind: str) -> None:
    raise ValueError(kind)


def test_errors_are_read_from_checks_and_helpers() -> None:
    assert faults.raised(checked) == [ArgumentError, ArgumentTypeError]  # a helper of somebody else's counts as theirs
    checked.__module__ = helper.__module__ = "jiio.kitchen"
    assert faults.raised(checked) == [ArgumentError, ArgumentTypeError, CellError]
    assert faults.raised(harmless) == [] and faults.raised(check_choice) == [ArgumentError]


# -- examples


def test_every_group_of_names_has_an_example() -> None:
    assert [(group.package, group.title) for group in GROUPS if not BLOCKS.get((group.package, group.title))] == []
    assert set(BLOCKS) == {(group.package, group.title) for group in GROUPS}


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda v: v)
def test_every_name_is_used_in_code_that_runs(package: str, name: str) -> None:
    """In the example of its group, or on a page, in the gallery or in a tutorial that its entry then links to."""
    (group,) = (group for group in GROUPS if group.package == package and name in group.names)
    own = set().union(*(examples.used(code) for code in BLOCKS[package, group.title]))
    assert (package, name) in own or PLACES.get((package, name)), f"use it in the example of {group.title}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import jiio\njiio.solve(1)", {("jiio", "solve")}),
        ("from jiio.models import build as make", {("jiio.models", "build")}),
        ("from jiio import attacks as a\na.PGD()", {("jiio", "attacks"), ("jiio.attacks", "PGD")}),
        ("import jiio.tasks\njiio.tasks.train()", {("jiio", "tasks"), ("jiio.tasks", "train")}),
        ("import torch\ntorch.load('x')\nmodel.train()", set()),
        ("from jiio.checks import fail", set()),
    ],
)
def test_names_are_found_in_code(code: str, found: set[tuple[str, str]]) -> None:
    assert examples.used(code) == found


def test_an_entry_links_to_where_its_name_is_used() -> None:
    lines = reference.entry("jiio", "solve", {("jiio", "solve"): ["start", "gallery"]})
    assert lines[-2] == "Seen at work in :doc:`/start`, :doc:`/gallery`."
    assert "Seen" not in "\n".join(reference.entry("jiio", "solve", {("jiio.models", "solve"): ["start"]}))
    assert reference.block("a = 1\n\nb = 2\n") == [".. code-block:: python", "", "   a = 1", "", "   b = 2", ""]
