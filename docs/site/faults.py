"""The errors of jiio that a call may raise, read from the code.

A call raises what stands behind ``raise`` and ``fail(..., error=...)`` in its body, in the checks that it calls, and in
helpers of its own module; a class what its constructor raises. What happens further down is for docstrings to tell.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from jiio.checks import ArgumentError, JiioError, fail

CHECKING = ("check", "_check", "refuse", "fail")  # how functions begin whose business are errors


def raised(thing: Any) -> list[type[JiioError]]:
    """The classes of the errors, by name."""
    found: set[type] = set()
    for function in entrances(thing):
        found |= errors(function, frozenset())
    return sorted(found, key=lambda error: error.__name__)


def entrances(thing: Any) -> Iterator[Callable[..., Any]]:
    """What runs when something is called: a function, or the constructors of a class of the house and its bases."""
    if not inspect.isclass(thing):
        yield inspect.unwrap(thing)
        return
    for base in thing.__mro__:
        if base.__module__.startswith("jiio"):
            yield from (vars(base)[name] for name in ("__init__", "__post_init__") if name in vars(base))


def errors(function: Callable[..., Any], above: frozenset[Any]) -> set[type]:
    """Those that a function raises; above: the functions that are being read already."""
    tree, names = parsed(function), getattr(function, "__globals__", {})
    found: set[type] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found |= kinds(node.exc.func, names)
        elif isinstance(node, ast.Call):
            called = names.get(node.func.id) if isinstance(node.func, ast.Name) else None
            if called is fail:
                given = [word.value for word in node.keywords if word.arg == "error"] or node.args[4:5]
                found |= kinds(given[0], names) if given else {ArgumentError}
            elif inspect.isfunction(called) and called not in above and followed(called, function):
                found |= errors(called, above | {function})
    return found


def followed(called: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Whether what a called function raises counts: a check of the house, or a helper from the same module."""
    house = called.__module__.startswith("jiio")
    return house and (called.__module__ == function.__module__ or called.__name__.startswith(CHECKING))


def kinds(node: ast.expr, names: dict[str, Any]) -> set[type]:
    """The class of errors that a name stands for."""
    thing = names.get(node.id) if isinstance(node, ast.Name) else None
    return {thing} if isinstance(thing, type) and issubclass(thing, JiioError) else set()


@functools.cache
def parsed(function: Callable[..., Any]) -> ast.AST | None:
    """The code of a function; None where there is none to read, as of what dataclasses write."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return None
