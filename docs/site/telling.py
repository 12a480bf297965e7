"""What the reference tells of a public name beyond its docstring: arguments that are explained elsewhere, and errors.

A docstring tells an argument by ``name: what it is``. What a class takes over is told once, by its base or by what its
docstring refers to in words such as "fields as in :class:`jiio.models.MultiscaleConfig`": the reference gathers those
entries, so that no docstring repeats another. The errors of a constructor are read from the code.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import docstrings
import faults

PACKAGES = ("jiio", "jiio.models", "jiio.attacks", "jiio.tasks")
REFERS = re.compile(r"\b(?:as in|as for|arguments of) :(?:class|func):`~?([\w.]+)`", re.IGNORECASE)
UNTOLD = ("self", "args", "kwargs")
Entries = dict[str, str]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's door; after that of ``docstrings``."""
    app.connect("autodoc-process-docstring", process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Append to the lines of a docstring what stands elsewhere."""
    if what in ("class", "function"):
        lines.extend(added(thing))


def added(thing: Any) -> Iterator[str]:
    """As reStructuredText."""
    for source, entries in borrowed(thing):
        if not source.__name__.startswith("_"):
            yield from (f"From {linked(source)}:", "")
        yield from (docstrings.listed(", ".join(names), text) for text, names in together(entries).items())
        yield ""
    named = [] if says_errors(thing) else faults.raised(thing)
    if named:
        yield from (f"**Errors.** {', '.join(linked(error) for error in named)} for unusable arguments.", "")


def together(entries: Entries) -> dict[str, list[str]]:
    """What is said -> the arguments of which it is said."""
    found: dict[str, list[str]] = {}
    for name, text in entries.items():
        found.setdefault(text, []).append(name)
    return found


def linked(thing: Any) -> str:
    """A reference to something public, else its name alone."""
    for package in PACKAGES:
        if getattr(importlib.import_module(package), thing.__name__, None) is thing:
            return f":py:obj:`{thing.__name__} <{package}.{thing.__name__}>`"
    return f"``{thing.__name__}``"


def says_errors(thing: Any) -> bool:
    """Whether its own docstring speaks of errors."""
    return bool(re.search(r"\b(?:Raises|Errors)\b", words(thing)))


def words(thing: Any) -> str:
    """The docstring that somebody wrote: not what a dataclass makes up, and not that of a base."""
    if not inspect.isclass(thing):
        return inspect.getdoc(thing) or ""
    text = inspect.cleandoc(vars(thing).get("__doc__") or "")
    return "" if text.startswith(f"{thing.__name__}(") else text


def arguments(thing: Any) -> list[str]:
    """What a caller may give, in order; nothing for exceptions, enumerations and what has no signature."""
    if isinstance(thing, type) and issubclass(thing, (BaseException, int)):
        return []
    return [name for name in docstrings.arguments(thing) if name not in UNTOLD]


def told(thing: Any) -> Entries:
    """Argument -> what its own docstring says of it."""
    return docstrings.entries(words(thing).split("\n"), arguments(thing))


def mentioned(thing: Any) -> set[str]:
    """The arguments that its own docstring speaks of, in an entry or in a sentence."""
    return {name for name in arguments(thing) if re.search(rf"(?<![\w.]){name}\b", words(thing))}


def bases(thing: Any) -> list[Any]:
    """The classes of the house that a class derives from, the nearest first."""
    return [base for base in thing.__mro__[1:] if base.__module__.startswith("jiio")] if inspect.isclass(thing) else []


def referred(thing: Any) -> Iterator[Any]:
    """What its docstring refers to for its arguments, and the bases of that."""
    for name in REFERS.findall(words(thing)):
        found = resolved(thing, name)
        if found is not None and found is not thing:
            yield from (found, *bases(found))


def resolved(thing: Any, name: str) -> Any:
    """What a docstring means by a name: one of its module or package, or a whole path; None where there is none."""
    head, _, last = name.rpartition(".")
    package = ".".join(thing.__module__.split(".")[:2])
    for place in (head,) if head else (thing.__module__, package, "jiio"):
        try:
            return getattr(importlib.import_module(place), last)
        except (ImportError, AttributeError):
            continue
    return None


def borrowed(thing: Any) -> list[tuple[Any, Entries]]:
    """(source, argument -> entry): of its bases what its own docstring has no entry for, then, of what it refers to,
    what it says nothing of.
    """
    names, own, spoken, found = arguments(thing), told(thing), mentioned(thing), []
    for wanted, sources in ((own, bases(thing)), (spoken, referred(thing))):
        for source in sources:
            known = set(wanted).union(*(entries for _, entries in found))
            taken = {name: text for name, text in told(source).items() if name in names and name not in known}
            if taken:
                found.append((source, taken))
    return found


def unmentioned(thing: Any) -> list[str]:
    """The arguments that the reference says nothing of."""
    known = mentioned(thing).union(*(entries for _, entries in borrowed(thing)))
    return [name for name in arguments(thing) if name not in known]


def members(cls: type) -> dict[str, Any]:
    """The methods of a class that its page shows: public ones with a docstring of their own."""
    found = {name: getattr(member, "__func__", member) for name, member in vars(cls).items() if name[0] != "_"}
    return {name: f for name, member in found.items() if inspect.isfunction(f := inspect.unwrap(member)) and f.__doc__}


def unmentioned_by(cls: type, method: str) -> list[str]:
    """The arguments of a method of which neither its docstring says anything, nor that of a base's, nor the class's."""
    function = members(cls)[method]
    above = [vars(base)[method] for base in bases(cls) if method in vars(base)]
    text = "\n".join([words(cls), *(inspect.getdoc(getattr(f, "__func__", f)) or "" for f in (function, *above))])
    names = [name for name in docstrings.arguments(function) if name not in (*UNTOLD, "cls", "_")]
    return [name for name in names if not re.search(rf"(?<![\w.]){name}\b", text)]
