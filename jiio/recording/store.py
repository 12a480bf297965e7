"""The steps that are recorded, a few at a time, and what is known of those that are not."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .base import AbstractReplay

KEPT = 8  # records; each holds the history of a solver
KNOWN = 256  # keys that are remembered, with how often they came


@dataclass
class RecordedStep:
    """A replay, how its tensors hang together, and who uses it now."""

    replay: AbstractReplay
    structure: Any
    costs: tuple[int, int]  # evaluations and VJPs of a step
    used: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)


class Store:
    """Records by key, the latest KEPT; those of a module go with the module."""

    def __init__(self) -> None:
        self.records: OrderedDict[Hashable, RecordedStep] = OrderedDict()
        self.seen: OrderedDict[Hashable, int] = OrderedDict()
        self.refused: OrderedDict[Hashable, str] = OrderedDict()
        self.owners: dict[int, tuple[weakref.ref[nn.Module], set[Hashable]]] = {}
        self.lock = threading.RLock()

    def find(self, key: Hashable) -> RecordedStep | None:
        with self.lock:
            record = self.records.get(key)
            if record is not None:
                self.records.move_to_end(key)
            return record

    def came(self, key: Hashable) -> int:
        """How often a solve of this key has come, this one counted."""
        with self.lock:
            self.seen[key] = self.seen.pop(key, 0) + 1
            _shortened(self.seen, KNOWN)
            return self.seen[key]

    def keep(self, key: Hashable, record: RecordedStep, owners: Iterable[nn.Module]) -> None:
        with self.lock:
            self.records[key] = record
            _shortened(self.records, KEPT)
            for module in owners:
                self._owner(module).add(key)

    def refuse(self, key: Hashable, why: str, owners: Iterable[nn.Module]) -> None:
        """Not to be tried again."""
        with self.lock:
            self.records.pop(key, None)
            self.refused[key] = why
            _shortened(self.refused, KNOWN)
            for module in owners:
                self._owner(module).add(key)

    def clear(self) -> None:
        with self.lock:
            for part in (self.records, self.seen, self.refused, self.owners):
                part.clear()

    def _owner(self, module: nn.Module) -> set[Hashable]:
        if id(module) not in self.owners:
            gone = id(module)
            self.owners[gone] = weakref.ref(module, lambda _: self._forget(gone)), set()
        return self.owners[id(module)][1]

    def _forget(self, owner: int) -> None:
        with self.lock:
            for key in self.owners.pop(owner, (None, set()))[1]:
                for part in (self.records, self.seen, self.refused):
                    part.pop(key, None)


def _shortened(part: OrderedDict, length: int) -> None:
    while len(part) > length:
        part.popitem(last=False)


STORE = Store()
