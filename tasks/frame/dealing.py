"""Work on many things that are computed one by one, test images for example, dealt out among the processes of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from .ranks import Ranks

T = TypeVar("T")
R = TypeVar("R")

_DEALING: ContextVar[Ranks] = ContextVar("dealing", default=Ranks())  # noqa: B039 (a frozen record)


@contextlib.contextmanager
def dealing(ranks: Ranks) -> Iterator[None]:
    """Within, :func:`dealt` divides its work. Only where all ranks do the same: who came alone would wait for ever."""
    token = _DEALING.set(ranks)
    try:
        yield
    finally:
        _DEALING.reset(token)


def present() -> Ranks:
    """Those who share the work; alone outside of :func:`dealing`."""
    return _DEALING.get()


def dealt(items: Iterable[T], act: Callable[[T], R]) -> list[R]:
    """What ``act`` makes of every item, in their order, on every rank; each item is done by one of them.

    All ranks go through all items, which may be drawn one after the other from one generator. Results are plain data or
    tensors on the CPU.
    """
    ranks = present()
    mine = {i: act(item) for i, item in enumerate(items) if i % ranks.count == ranks.index}
    found = {i: value for part in ranks.gathered(mine) for i, value in part.items()}
    return [found[i] for i in sorted(found)]
