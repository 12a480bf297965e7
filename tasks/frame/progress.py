"""How far a training is, for whoever watches: a bar on a terminal, and a line every half minute where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

EVERY = 30.0  # seconds between two lines


class Bar:
    """On a terminal: tqdm's bar with the loss."""

    def __init__(self, name: str, steps: int, done: int) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=steps, initial=done, desc=name)

    def step(self, figures: dict[str, float]) -> None:
        self.bar.set_postfix(loss=f"{figures['loss']:.4g}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class Lines:
    """In a file of a cluster: where the training is, how fast, and how long it will take, every half minute.

    The speed is that since the line before.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        done: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.steps, self.done, self.report, self.clock = name, steps, done, report, clock
        self.said, self.since = clock(), 0

    def step(self, figures: dict[str, float]) -> None:
        self.done, self.since = self.done + 1, self.since + 1
        now = self.clock()
        if now - self.said < EVERY:
            return
        pace = (now - self.said) / self.since
        left = duration(pace * (self.steps - self.done))
        told = f"step {self.done} of {self.steps}, loss {figures['loss']:.4g}, {pace:.2g} s a step, {left} left"
        self.report(f"{self.name}: {told}")
        self.said, self.since = now, 0

    def close(self) -> None:
        """Nothing is left to say."""


def duration(seconds: float) -> str:
    """About how long, in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def watched(name: str, steps: int, done: int, report: Callable[[str], None]) -> Bar | Lines:
    """What suits standard error."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return Bar(name, steps, done) if terminal else Lines(name, steps, done, report)
