"""Numbers and mappings as people type them: ``8/255``, ``0.49,0.48,0.45``, ``'{"steps": 50}'``."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from jiio.checks import fail
from jiio.tasks.frame.files import InputError


def number(argument: str, word: str) -> float:
    """One number, or a fraction of two.

    Errors: InputError.
    """
    try:
        above, slash, below = word.partition("/")
        return float(Fraction(above.strip()) / Fraction(below.strip())) if slash else float(word)
    except (ValueError, ZeroDivisionError, OverflowError):
        fail(argument, "a number such as 0.5 or 8/255", repr(word), error=InputError)


def numbers(argument: str, words: Iterable[str], count: int | None = None) -> tuple[float, ...]:
    """Numbers between blanks or commas; exactly ``count`` of them where it is given.

    Errors: InputError.
    """
    parts = [part for word in words for part in word.split(",") if part.strip()]
    if not parts or (count is not None and len(parts) != count):
        fail(argument, "numbers" if count is None else f"{count} numbers", " ".join(words) or "none", error=InputError)
    return tuple(number(argument, part) for part in parts)


def mapping(argument: str, text: str) -> dict[str, Any]:
    """Names and values, in JSON or in the one-line form of YAML.

    Errors: InputError.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        fail(argument, "names and values such as '{\"steps\": 50}'", repr(text), error=InputError)
    return value
