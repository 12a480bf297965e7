"""The figures of an interrupted comparison, to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, read_bytes

from .benchmark import Benchmark

MOST_BYTES = 64 << 20


def earlier(path: Path | None, head: Mapping[str, Any]) -> Benchmark:
    """The figures of an interrupted run under the same settings; none where the file is not there yet.

    Errors: InputError where the file is of other settings or cannot be read.
    """
    if path is None or not path.exists():
        return Benchmark()
    found, result = read_figures(path)
    for key, value in json.loads(json.dumps(head)).items():
        if key != "pictures" and found.get(key) != value:  # more pictures of the same set may follow
            came = f"{path} with {found.get(key)!r}"
            fail("--resume", f"figures of the same run ({key} {value!r})", came, "Name another file.", InputError)
    return result


def read_figures(path: Path) -> tuple[dict[str, Any], Benchmark]:
    """A file of figures: all that it says, and the figures themselves."""
    try:
        found = json.loads(read_bytes("--json", path, "the figures of jiio compare", MOST_BYTES))
        rows = [{key: float("nan") if v is None else v for key, v in row.items()} for row in found["rows"]]
        result = Benchmark(rows, dict(found["tuned"]))
        # What the means need; older files may have more.
        if not all({"method", "picture", "PSNR", "SSIM"} <= row.keys() for row in rows):
            raise KeyError("method, picture, PSNR and SSIM")

    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        came = f"{path}, which holds something else"
        raise InputError(f"--json: expected the figures of jiio compare to go on with, got {came}.") from error
    return found, result
