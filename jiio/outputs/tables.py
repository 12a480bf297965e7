"""Rows of figures as a table for the terminal, and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def table(rows: list[dict[str, str | float]]) -> str:
    """Rows with the same keys as aligned columns."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[f"{v:.4g}" if isinstance(v := row.get(head, ""), float) else str(v) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [[word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in [heads, *cells]]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def finite(rows: list[dict[str, str | float]]) -> list[dict[str, str | float | None]]:
    """JSON knows neither NaN nor infinity: they become null."""
    return [
        {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()} for row in rows
    ]


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """The figures as a file, whole or not at all."""
    from .atomic import write_whole

    write_whole(path, json.dumps(figures, indent=2).encode() + b"\n")
