"""Part of an evaluation: several processes share the batches and one folder, and any of them can make the report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from jiio.checks import check_integer, fail


class Shard(NamedTuple):
    """Part number ``index``, from 0, of ``count`` parts: every batch whose number leaves that rest."""

    index: int = 0
    count: int = 1

    def check(self) -> Shard:
        """Raise unless there is such a part."""
        count = check_integer("shard", self.count, 1)
        if check_integer("shard", self.index, 0) >= count:
            fail("shard", f"a part from 0 to {count - 1} of {count}", self.index)
        return self

    def has(self, number: int) -> bool:
        """Whether the batch with this number belongs to it."""
        return number % self.count == self.index

    @property
    def name(self) -> str:
        """Of the folder whose lock keeps two processes off the same part."""
        return f"shard-{self.index + 1}-of-{self.count}"

    @classmethod
    def of_word(cls, argument: str, word: str) -> Shard:
        """From I/N, where I counts from 1."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", word)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            fail(argument, "I/N with I from 1 to N, such as 1/4", repr(word))
        return cls(int(found[1]) - 1, int(found[2]))

    @classmethod
    def of_environment(cls, values: Mapping[str, str] = os.environ) -> Shard | None:
        """The part that torchrun gave this process (RANK, WORLD_SIZE); None where it is alone."""
        try:
            shard = cls(int(values.get("RANK", "0")), int(values.get("WORLD_SIZE", "1")))
        except ValueError:
            fail("RANK and WORLD_SIZE", "whole numbers", f"{values.get('RANK')!r} and {values.get('WORLD_SIZE')!r}")
        return shard.check() if shard.count > 1 else None
