"""How long the parts of a step take."""

from __future__ import annotations

import time


class Clock:
    """Time since it was made: on the wall, and of the processor, which other work on the machine does not change."""

    def __init__(self) -> None:
        self.begin = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self.begin[0]

    @property
    def processor(self) -> float:
        return time.process_time() - self.begin[1]
