"""Finished figures by name, in a file from the first on: a run that was stopped goes on by the same command."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import say
from jiio.checks import fail
from jiio.outputs.atomic import write_whole
from jiio.tasks.frame.files import InputError, read_bytes

WORDS = {"never": math.inf, "-": math.nan}  # JSON knows neither; they stand in the file as in the tables
LIMIT = 64 << 20  # bytes of a file of figures


class Rows:
    """What was measured so far, under the settings that it depends on.

    settings: whatever changes a figure and is no part of its key; figures of other settings are refused. path: of the
    file, None to keep nothing.

    Errors: InputError, where ``path`` holds something else.
    """

    def __init__(self, settings: dict[str, Any], path: Path | None = None) -> None:
        self.settings, self.path, self.begin = json.loads(json.dumps(plain(settings))), path, time.monotonic()
        self.found: dict[str, Any] = {} if path is None or not path.exists() else self._read(path)

    def each(self, key: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What stands under ``key``; ``make(*arguments)``, and written, where it is not there yet.

        Both ways it is what the file gives back (no tensors, lists instead of tuples), so that a run that goes on ends
        like one that was left alone.
        """
        if key not in self.found:
            self.found[key] = json.loads(json.dumps(plain(make(*arguments)), allow_nan=False))
            say(f"{key}: {shortened(self.found[key])}")
            self.write({})
        return numbers(self.found[key])

    def late(self, key: str, minutes: float) -> bool:
        """Whether ``key`` should be left to the next run: it is not there, and the time for new ones is over."""
        return key not in self.found and time.monotonic() - self.begin > 60 * minutes

    def write(self, about: dict[str, Any]) -> None:
        """The whole file, with ``about`` at its head."""
        if self.path is not None:
            content = plain(about) | {"settings": self.settings, "rows": self.found}
            write_whole(self.path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

    def _read(self, path: Path) -> dict[str, Any]:
        what, remedy = "figures of this benchmark", "Name another file, or remove this one."
        try:
            found = json.loads(read_bytes("--output", path, what, LIMIT))
            settings, rows = dict(found["settings"]), dict(found["rows"])
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            fail("--output", what, f"{path}, which holds something else", remedy, InputError)

        # By name: who reads the refusal sees which option was another.
        other = [key for key in {**settings, **self.settings} if settings.get(key) != self.settings.get(key)]
        if other:
            expected = ", ".join(f"{key} {self.settings.get(key)}" for key in other)
            came = ", ".join(f"{key} {settings.get(key)}" for key in other)
            fail("--output", f"{what} with {expected}", f"{path} with {came}", remedy, InputError)
        return rows


def shortened(value: Any) -> str:
    """For a line of progress."""
    text = json.dumps(value)
    return text if len(text) <= 400 else f"{text[:400]} ..."


def plain(value: Any) -> Any:
    """Ready for JSON: no tensors, and in words what is not a number or never happened."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "never" if math.isinf(value) else "-"
    return str(value) if isinstance(value, Path) else value


def numbers(value: Any) -> Any:
    """The way back from :func:`plain`, in a copy: words become what they say."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return WORDS.get(value, value) if isinstance(value, str) else value
