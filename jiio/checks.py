"""Exceptions, warnings, and the validators that raise them.

A message names the argument, what was expected, what came, and what to do. Every exception derives from
:class:`JiioError` and from the built-in that a caller would reach for (``ValueError``, ``TypeError``,
``RuntimeError``).
"""

from __future__ import annotations

import difflib
import math
import numbers
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor


class JiioError(Exception):
    """Base of everything that jiio raises on purpose."""


class ArgumentError(JiioError, ValueError):
    """An argument has an unusable value."""


class ArgumentTypeError(JiioError, TypeError):
    """An argument is of an unusable type."""


class CellError(JiioError, RuntimeError):
    """The cell or the objective broke its contract (shape, dtype, device, a map that changes during the solve)."""


class ConvergenceError(JiioError, RuntimeError):
    """Raised where ``on_failure="raise"`` and a sample did not converge."""


class GradientError(JiioError, RuntimeError):
    """A gradient was asked for that this adjoint does not define."""


class SecondDerivativeError(GradientError):
    """A second derivative was asked for that would be silently wrong."""


class UnsupportedError(JiioError, NotImplementedError):
    """A way of calling that is not built: refused, because its result would be wrong or another library's error."""


class CheckpointError(JiioError, RuntimeError):
    """A checkpoint or weights file cannot be read."""


class ConvergenceWarning(UserWarning):
    """Some samples did not converge; ``Solution.status`` says which."""


class PrecisionWarning(UserWarning):
    """A tolerance is below what the arithmetic resolves: samples were taken as converged where rounding is all."""


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether it is one; who has not loaded torch has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def describe(value: Any) -> str:
    """A short word for what came, fit for a message."""
    if is_tensor(value):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)} on {value.device}"
    if isinstance(value, (tuple, list)) and any(is_tensor(part) for part in value):
        return f"a {type(value).__name__} of " + ", ".join(describe(part) for part in value[:4])
    if isinstance(value, dict) and value:
        return "a dict of " + ", ".join(f"{key!r}: {describe(part)}" for key, part in list(value.items())[:4])
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def fail(argument: str, expected: str, came: Any, remedy: str = "", error: type[JiioError] = ArgumentError) -> NoReturn:
    """Raise ``error`` with the house sentence."""
    sentence = f"{argument}: expected {expected}, got {came if isinstance(came, str) else describe(came)}."
    raise error(f"{sentence} {remedy}".rstrip())


def check_number(
    argument: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """A finite real number in [low, high] (or (low, high] with ``open_low``), as a float."""
    bounds = f"a number {'above' if open_low else 'of at least'} {low:g}" if low > -math.inf else "a finite number"
    if high < math.inf:
        bounds += f" and at most {high:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        fail(argument, bounds, value, error=ArgumentTypeError)
    number = float(value)
    if not math.isfinite(number) or number < low or number > high or (open_low and number <= low):
        fail(argument, bounds, value)
    return number


def check_integer(argument: str, value: Any, low: int) -> int:
    """A whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        fail(argument, f"a whole number of at least {low}", value, error=ArgumentTypeError)
    if value < low:
        fail(argument, f"a whole number of at least {low}", value)
    return value


def check_choice(argument: str, value: Any, choices: Collection[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        close = difflib.get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
        remedy = f"Did you mean {close[0]!r}?" if close else ""
        fail(argument, "one of " + ", ".join(repr(c) for c in choices), value, remedy)
    return value


def check_instance(argument: str, value: Any, kind: type, remedy: str = "") -> Any:
    """An instance of ``kind``; a class passed by mistake gets told to add the brackets."""
    if isinstance(value, kind):
        return value
    if isinstance(value, type) and issubclass(value, kind):
        remedy = f"Pass an object, {value.__name__}(...), not the class."
    fail(argument, f"an instance of {kind.__name__}", value, remedy, ArgumentTypeError)


def check_callable(argument: str, value: Any, signature: str) -> Any:
    """A callable with the given signature (told, not inspected)."""
    if not callable(value):
        fail(argument, f"a callable {signature}", value, error=ArgumentTypeError)
    return value


def check_finite(argument: str, value: Tensor) -> Tensor:
    """A tensor without NaN or infinity."""
    if not bool(value.isfinite().all()):
        bad = int((~value.isfinite()).sum())
        fail(argument, "finite values", f"{bad} of {value.numel()} entries NaN or infinite")
    return value
