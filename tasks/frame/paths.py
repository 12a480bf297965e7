"""Import paths, ``package.module:Name``: classes of one's own in configurations, on the command line, in checkpoints.

What a person writes into a configuration or on a command line is theirs and is imported. A file that somebody else made
must not decide what is imported: while one is read, :func:`only` bars every path that the reader has not named.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from .load import ConfigError, nearest

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

# What the command line allows throughout; what is allowed while a file is read (None: no file is being read).
_named: ContextVar[frozenset[str]] = ContextVar("named", default=frozenset())
_reading: ContextVar[frozenset[str] | None] = ContextVar("reading", default=None)


def is_path(name: str) -> bool:
    """Whether a name is meant as an import path; no built-in name has a colon."""
    return ":" in name


def fetch(path: str) -> Any:
    """What stands at a path of our own."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Within, files may name these: paths, or modules and packages with all that is in them."""
    token = _named.set(_named.get() | frozenset(names))
    try:
        yield
    finally:
        _named.reset(token)


def allowed() -> tuple[str, ...]:
    """What :func:`allowing` has named."""
    return tuple(sorted(_named.get()))


@contextlib.contextmanager
def only(names: Iterable[str]) -> Iterator[None]:
    """Within, a file is read: paths are followed only if they are among ``names`` or :func:`allowing` has them."""
    token = _reading.set(frozenset(names) | _named.get())
    try:
        yield
    finally:
        _reading.reset(token)


def check_allowed(path: str, where: str) -> None:
    """Nothing where the path may be followed.

    Errors: ConfigError where a file that is being read names code that its reader has not.
    """
    allowed = _reading.get()
    module = path.partition(":")[0]
    if allowed is None or any(path == name or f"{module}.".startswith(f"{name}.") for name in allowed):
        return
    raise ConfigError(
        f"{where}: the file names code of its own, {path!r}; nothing of it was imported. If you trust it, pass "
        f"--allow {path} on the command line or allow=[{path!r}] in Python."
    )


def import_path(path: str, where: str) -> Any:
    """What stands at ``package.module:Name``.

    Errors: ConfigError where the path has another form, may not be followed, or leads nowhere.
    """
    if not PATH.fullmatch(path):
        raise ConfigError(f"{where}: expected an import path such as package.module:Name, got {path!r}.")
    check_allowed(path, where)
    module, _, name = path.partition(":")

    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # somebody else's module may raise anything, a script may end
        remedy = "Is it installed, or in the folder that the command is started in?"
        raise ConfigError(f"{where}: {path} cannot be imported ({type(error).__name__}: {error}). {remedy}") from error

    if not hasattr(found, name):
        public = [word for word in vars(found) if not word.startswith("_")]
        raise ConfigError(f"{where}: {module} has no {name!r}. {nearest(name, public)}")
    return getattr(found, name)
