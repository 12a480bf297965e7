"""Where steps are to be recorded: what holds in a block of code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from ..checks import check_choice, check_instance
from .base import AbstractRecorder

WHEN = ("auto", "always", "never")


@dataclass(frozen=True)
class Wish:
    """when: "auto", "always" or "never". recorder: None for the one of the device."""

    when: str = "never"
    recorder: AbstractRecorder | None = None


_USUAL = Wish()
_wish: ContextVar[Wish] = ContextVar("recorded_steps", default=_USUAL)


@contextlib.contextmanager
def recorded_steps(when: str = "always", *, recorder: AbstractRecorder | None = None) -> Iterator[None]:
    """Within, the steps of a solve are recorded once and replayed: one launch each on a GPU, no autograd on a CPU.

    when: "always", from the first solve on; "auto", on a GPU where a solve of equal shapes has come for the third time,
    on a CPU never; "never", what holds without this as long as no GPU has confirmed the other two. recorder: None for a
    CUDA graph on a GPU and the traced operations on a CPU. The iterates are the same to rounding. Solves that cannot be
    recorded run as ever: those with a callback, a trace or a metric, an adjoint that differentiates through them, cells
    that look at numbers or have hooks.

    Errors: ArgumentError for another word, ArgumentTypeError for what is no recorder.
    """
    check_choice("when", when, WHEN)
    if recorder is not None:
        check_instance("recorder", recorder, AbstractRecorder)
    token = _wish.set(Wish(when, recorder))
    try:
        yield
    finally:
        _wish.reset(token)


def wished() -> Wish:
    """What holds here."""
    return _wish.get()
