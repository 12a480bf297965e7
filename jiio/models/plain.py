"""The configuration of a model as JSON and back, and when a file's word for a class is followed.

A class of this package stands in a file by its ``kind``, any other by its import path "package.module:Name". To import
a module is to run it, so that is done only where the caller has named it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from ..checks import ArgumentTypeError, CheckpointError, JiioError, fail
from .build import ModelConfig
from .cells.base import KINDS, AbstractCellConfig

PATH = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)", re.ASCII)
TEXT_LIMIT = 2**16  # characters; the configurations of this package need a few hundred


def refuse(path: Path, came: str, remedy: str = "") -> NoReturn:
    """The sentence of every file that is not a model."""
    expected = "a complete model file written by jiio.models.save"
    fail("path", expected, f"{str(path)!r}: {came}", remedy, CheckpointError)


def line(error: BaseException) -> str:
    """The first line of a message, without its full stop; what it cites from a file can be long."""
    return (str(error).splitlines() or [""])[0][:300].rstrip(".")


def word(kind: type[AbstractCellConfig]) -> str:
    """By what a file names the class: the word of one of ours, or "package.module:Name"."""
    if KINDS.get(kind.kind) is kind:
        return kind.kind
    return f"{kind.__module__}:{kind.__qualname__}"


def encode(config: ModelConfig) -> str:
    """The configuration as JSON."""
    content = dataclasses.asdict(config)
    return json.dumps(content | {"cell": {**content["cell"], "kind": word(type(config.cell))}}, sort_keys=True)


def encode_checked(config: ModelConfig) -> str:
    """The same, held to it that ``decode`` gives the configuration back; CheckpointError where it would not."""
    kind = type(config.cell)
    name = word(kind)
    # Held to its name: what is imported by it must be this very class.
    found = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    if name not in KINDS and (found is not kind or not PATH.fullmatch(name)):
        remedy = "Define it at the top of a module."
        fail("model", "a cell whose configuration can be imported by its name", repr(name), remedy, CheckpointError)

    try:
        text = encode(config)
        reserved = any(entry.name == "kind" for entry in dataclasses.fields(config.cell))  # type: ignore[arg-type]
        same = not reserved and encode(_rebuilt(json.loads(text), kind)) == text
    except (TypeError, ValueError, KeyError, JiioError):
        same = False
    if not same or len(text) > TEXT_LIMIT:
        expected = f"a cell configuration of numbers, words, and tuples of them, of at most {TEXT_LIMIT} characters"
        fail("model", expected, config.cell, "A file could not give it back.", CheckpointError)
    return text


def decode(content: dict[str, Any], path: Path, allow: Collection[str] = ()) -> ModelConfig:
    """Parsed JSON -> configuration; CheckpointError where it is not one. allow: as in :func:`jiio.models.load`."""
    kind = find(content["cell"].get("kind"), path, allow)
    try:
        return _rebuilt(content, kind)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, JiioError) as error:
        refuse(path, f"a configuration that makes no model ({type(error).__name__}: {line(error)})")


def read_mapping(text: str, path: Path) -> dict[str, Any]:
    """The mapping that a text in JSON says, with another one under "cell"."""
    if len(text) > TEXT_LIMIT:
        refuse(path, f"a configuration of {len(text)} characters, where {TEXT_LIMIT} is the most")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        refuse(path, f"a configuration that is not JSON ({line(error)})")
    if not isinstance(content, dict):
        refuse(path, f"a configuration that is no mapping but a {type(content).__name__}")
    if not isinstance(content.get("cell"), dict):
        refuse(path, f"a configuration whose cell is no mapping but a {type(content.get('cell')).__name__}")
    return content


def find(name: Any, path: Path, allow: Collection[str]) -> type[AbstractCellConfig]:
    """The class that a file names: one of ours, or one that ``allow`` lets be imported."""
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    place = PATH.fullmatch(name) if isinstance(name, str) else None
    if place is None:
        told = repr(name) if isinstance(name, str) else type(name).__name__  # it may be nested without end
        refuse(path, f"a configuration whose cell is of the unknown kind {told[:100]}")
    if not is_allowed(name, allow):
        came = f"a cell of the class {name!r}, which is not one of jiio's; nothing was imported"
        refuse(path, came, f"Where you trust the code of that module, pass allow=({name!r},).")

    try:
        found = getattr(importlib.import_module(place["module"]), place["name"])
    except Exception as error:  # whatever a module of somebody else raises
        refuse(path, f"a cell of the class {name!r}, which cannot be imported ({type(error).__name__}: {line(error)})")
    if not isinstance(found, type) or not issubclass(found, AbstractCellConfig):
        refuse(path, f"a cell of the class {name!r}, which is not an AbstractCellConfig")
    return found


def is_allowed(name: str, allow: Collection[str]) -> bool:
    """Whether ``allow`` names the class, its module, or a package around it."""
    module = name.partition(":")[0]
    return any(entry in (name, module) or module.startswith(f"{entry}.") for entry in allow)


def check_allow(allow: Any) -> tuple[str, ...]:
    """A tuple of names; one name alone would be a collection of letters."""
    names = allow if isinstance(allow, (tuple, list, set, frozenset)) else (None,)
    if not all(isinstance(entry, str) and entry for entry in names):
        expected = "a tuple of names of packages, modules, or classes as 'package.module:Name'"
        fail("allow", expected, allow, error=ArgumentTypeError)
    return tuple(names)  # type: ignore[arg-type]


def _rebuilt(content: dict[str, Any], kind: type[AbstractCellConfig]) -> ModelConfig:
    """From parsed JSON, which has lists where the frozen classes want tuples."""
    cell = {name: _tuples(value) for name, value in content["cell"].items() if name != "kind"}
    rest = {name: _tuples(value) for name, value in content.items() if name != "cell"}
    return ModelConfig(cell=kind(**cell), **rest)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
