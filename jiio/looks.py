"""Whether the numbers of a tensor may be looked at: free on a CPU, a wait on a GPU, impossible in a recorded step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import Tensor

_HERE = threading.local()


def recording() -> bool:
    """Whether this thread is recording a step, whose course may not depend on any number."""
    return getattr(_HERE, "depth", 0) > 0


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Within, a step is recorded: nothing is looked at, not even on a CPU."""
    _HERE.depth = getattr(_HERE, "depth", 0) + 1
    try:
        yield
    finally:
        _HERE.depth -= 1


def free(like: Tensor) -> bool:
    """Whether a look at a tensor on the device of ``like`` costs nothing."""
    return like.device.type == "cpu" and not recording()


def some(mask: Tensor, count: int | None = None) -> bool:
    """Whether ``mask`` (B,) has any; taken for granted where nobody may look. count: how many, where that is known."""
    return recording() or (bool(mask.any()) if count is None else count > 0)
