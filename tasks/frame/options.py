"""The options of a command as one frozen record: declared, documented, read and checked in one place.

    @dataclass(frozen=True)
    class WriteOptions:
        '''Continue a text.

        Args:
            checkpoint: a checkpoint of the task language
            length: tokens to write
        '''

        checkpoint: str                      # without a default: a word of the command line
        others: tuple[str, ...] = words()    # any number of words
        length: int = 300                    # --length N
        data_root: Path | None = None        # --data-root NAME, which may not be empty
        overwrite: bool = False              # --overwrite, a switch
        curve: tuple[float, ...] = ()        # --curve NUMBER NUMBER ...
        attack: tuple[tuple[str, ...], ...] = ()    # --attack WORD WORD ... --attack WORD ...
        target: str = field(kw_only=True)    # --target TEXT, which must be given
        joint: Mapping[str, Any] = keys_of("package.module:JointConfig")    # --joint.max_steps N

The docstring is the help, ``__post_init__`` checks, and the sentences name the option as it is typed.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jiio.checks import check_integer, fail

from .config import whole
from .files import InputError
from .registry import fetch

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

T = TypeVar("T")
KEYS = "keys of"
WORDS = "words"
MOST_THREADS = 1024
MOST_SEED = 2**63 - 1  # what torch's generators take


def keys_of(path: str) -> Any:
    """A field that takes the keys of a configuration class, as far as they are given: ``package.module:Class``."""
    return dataclasses.field(default_factory=dict, metadata={KEYS: path})


def words() -> Any:
    """A field that takes whatever words stand on the command line without a name, none included."""
    return dataclasses.field(default=(), metadata={WORDS: True})


def flag(name: str) -> str:
    """A field as it is typed."""
    return f"--{name.replace('_', '-')}"


def declare(parser: ArgumentParser, record: type[Any]) -> None:
    """Add an argument for each field of the record."""
    add: Any = parser.add_argument
    words, hints = explained(record), typing.get_type_hints(record)

    for one in dataclasses.fields(record):
        kind, many = typed(hints[one.name])
        told: dict[str, Any] = {"help": words.get(one.name, "")}
        if KEYS in one.metadata:
            parser.add_class_arguments(fetch(one.metadata[KEYS]), one.name)
        elif kind is bool:
            add(flag(one.name), action="store_true", **told)
        else:
            told |= told_of(kind, many) | ({"nargs": "*"} if WORDS in one.metadata else {})
            name = one.name if is_word(one) else flag(one.name)
            add(name, **told, **({} if is_word(one) else shown_default(one)))


def told_of(kind: Any, many: bool) -> dict[str, Any]:
    """What the parser is told of a type; several of several are an option that may be repeated."""
    if typing.get_origin(kind) is tuple:
        return {"type": typing.get_args(kind)[0], "nargs": "+", "action": "append"}
    return {"type": str if kind is Path else kind} | ({"nargs": "+"} if many else {})


def is_word(one: dataclasses.Field[Any]) -> bool:
    """Whether a field has a place and no name on the command line: no default, and not to be given by name alone."""
    if WORDS in one.metadata:
        return True
    return one.default is dataclasses.MISSING and KEYS not in one.metadata and not one.kw_only


def shown_default(one: dataclasses.Field[Any]) -> dict[str, Any]:
    """What the parser is told of a default, so that the help shows it; () is the same as nothing."""
    if one.default is dataclasses.MISSING:
        return {"required": True}
    if one.default in (None, ()):
        return {}
    return {"default": str(one.default) if isinstance(one.default, Path) else one.default}


def explained(record: type[Any]) -> dict[str, str]:
    """Field -> its help, from the ``Args:`` of the docstring, which ends at an empty line."""
    block = (record.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^ {8}(?=\w+: )", block, flags=re.MULTILINE)[1:]
    parts = (entry.partition(":") for entry in entries)
    return {name: " ".join(words.split()) for name, _, words in parts}


def typed(hint: Any) -> tuple[type[Any], bool]:
    """The plain type behind an annotation, and whether several of it are wanted."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def chosen(record: type[T], values: Mapping[str, Any]) -> T:
    """The record, from what stood on the command line; keys that are no fields of it are left alone.

    Errors: JiioError, whose sentence names the option.
    """
    hints = typing.get_type_hints(record)
    given: dict[str, Any] = {}

    for one in dataclasses.fields(record):  # type: ignore[arg-type]
        value: Any = values.get(one.name)
        if value is None:
            continue
        kind, many = typed(hints[one.name])
        if kind is Path:
            value = named(one.name if is_word(one) else flag(one.name), value)
        given[one.name] = tuple(tuple(v) if isinstance(v, list) else v for v in value) if many else value
    return record(**given)


def left(record: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What stood on the command line beside the fields of the record."""
    return {key: value for key, value in values.items() if key not in record.__dataclass_fields__}


def named(argument: str, word: str) -> Path:
    """A path; the empty name would mean the working folder, and a NUL byte is in no name."""
    if not word or "\0" in word:
        fail(argument, "the name of a file or a folder", repr(word), error=InputError)
    return Path(word)


def check_threads(threads: int | None) -> None:
    """As many as a machine can have, or None for torch's choice."""
    if threads is not None:
        whole("--threads", threads, 1, MOST_THREADS)


def check_seed(seed: int | None) -> None:
    """A seed, or None for that of a training."""
    if seed is not None and check_integer("--seed", seed, 0) > MOST_SEED:
        fail("--seed", f"a whole number of at most {MOST_SEED}", str(seed), error=InputError)
