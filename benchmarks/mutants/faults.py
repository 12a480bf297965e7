"""A fault: one place of a file, what is written there instead, and which tests should notice."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """what: in words. file: from the root of the repository. old: a stretch of it, found once or more; its first
    occurrence is replaced by ``new``. tests: files or test ids from the root, the likeliest first.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
