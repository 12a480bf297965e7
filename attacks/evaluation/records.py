"""What is kept of one batch, and in which words: one entry per batch, and how each of its samples ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

ROBUST, BROKEN, WRONG, UNCONVERGED = range(4)
WORDS = ("robust", "broken", "wrong", "unconverged")


class Entry(NamedTuple):
    """tensors: name -> (B, ...), on the CPU. words: what JSON can say, per attack."""

    tensors: dict[str, Tensor]
    words: dict[str, Any]
