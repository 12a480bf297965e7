"""The three stages in order, and what a stage has to do: plain functions by name, each of them one row of figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.rows import Rows
from benchmarks.tables import Row

GOOD, BAD, LATER, MISSED = "ok", "FAILED", "not begun", "ok, aim missed"


@dataclass(frozen=True)
class Setting:
    """Where and how large. folder: for what trainings and commands write."""

    device: torch.device
    fast: bool
    folder: Path

    def clock(self) -> float:
        """Seconds, when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def timed(self, work: Callable[[], object], repeats: int, warm: int = 2) -> float:
        """Median milliseconds of one call, after some that do not count."""
        for _ in range(warm):
            work()
        spent = []
        for _ in range(repeats):
            begin = self.clock()
            work()
            spent.append(1e3 * (self.clock() - begin))
        return sorted(spent)[len(spent) // 2]


Work = Callable[[Setting], Row]


def judged(row: Row, setting: Setting, met: bool) -> Row:
    """A row with its verdict: whether its aims are met, which are those of a GPU and of full size."""
    if setting.fast or setting.device.type != "cuda":
        return {**row, "verdict": GOOD}
    return {**row, "verdict": GOOD if met else MISSED}


def attempt(work: Work, setting: Setting) -> Row:
    """One row; a fault is a row too, so that the others are still measured."""
    begin = time.monotonic()
    try:
        row = work(setting)
    except Exception as error:
        row = {"verdict": BAD, "why": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"verdict": GOOD, **row, "seconds": round(time.monotonic() - begin, 1)}


def carried_out(stages: dict[str, dict[str, Work]], setting: Setting, rows: Rows, budget: float) -> list[Row]:
    """Every row of every stage, in order, until the seconds are spent; what stands in the file is not done again."""
    found = []
    for stage, works in stages.items():
        for name, work in works.items():
            key = f"{stage}: {name}"
            late = rows.late(key, budget / 60)
            row = {"verdict": LATER} if late else rows.each(key, attempt, work, setting)
            found.append({"stage": stage, "what": name, **row})
    return found
