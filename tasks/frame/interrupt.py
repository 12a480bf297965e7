"""Ctrl-C and SIGTERM as a request that a loop honours where its state is whole."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, after the checkpoint was written. ``code`` is the exit code that shells expect (130)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interruption:
    """Within this context the first signal sets ``code`` (128 + its number) and the second one stops at once."""

    def __init__(self) -> None:
        self.code: int | None = None

    def __enter__(self) -> Interruption:
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: set by something other than Python, which cannot be put back
                self.previous[number] = signal.signal(number, self._handle) or signal.SIG_DFL
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            raise TrainingInterrupted("Stopped at once; the last checkpoint stands.", 128 + number)
        self.code = 128 + number
        # os.write, because print is not safe inside a handler.
        os.write(2, b"\nFinishing this step, then saving; once more stops at once.\n")
