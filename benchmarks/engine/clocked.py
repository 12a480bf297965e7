"""A cell that notes the time at each of its calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jiio.holding import module_of
from jiio.layout import Tree

Clock = Callable[[], float]


class Clocked:
    """The cell ``cell``; the time between two of its calls is one step."""

    def __init__(self, cell: Any, clock: Clock = time.process_time) -> None:
        self.cell, self.module, self.clock = cell, module_of(cell), clock
        self.times: list[float] = []

    def __call__(self, z: Tree, x: Tree) -> Tree:
        self.times.append(self.clock())
        return self.cell(z, x)

    def initial_state(self, x: Tree) -> Tree:
        return self.cell.initial_state(x)

    def steps(self, settled: int) -> list[float]:
        """Durations of the steps after the first ``settled`` calls."""
        return [b - a for a, b in zip(self.times[settled:-1], self.times[settled + 1 :], strict=True)]
