"""How many CPU threads a run may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run the block with ``count`` threads; None leaves torch's choice.

    Small networks are faster on one: a thread that waits for its partner on a busy machine costs more than it brings
    (measured on two busy cores: the live demo took 542 seconds with two threads, about a minute with one).
    """
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
