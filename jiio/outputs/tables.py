"""Rows of figures as a table for the terminal, and as a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic import write_whole

# "12", "-0.5", "1,024", "93.1% [90.2%, 95.4%]", "nan", and the empty cell
FIGURE = re.compile(r"[-+]?(\d|\.\d|nan|inf)|$")


def table(rows: Sequence[Mapping[str, str | float]], *, indent: str = "") -> str:
    """Rows with the same keys as aligned columns under their heads: words to the left, figures to the right."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    columns = [_column(head, [row.get(head, "") for row in rows], first=i == 0) for i, head in enumerate(heads)]
    return "\n".join(f"{indent}{'  '.join(line)}".rstrip() for line in zip(*columns, strict=True))


def _column(head: str, values: list[str | float], *, first: bool) -> list[str]:
    """Head and cells, all of one width. The first column names its row, so it stands to the left whatever is in it."""
    words = [head, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)]
    width = max(len(word) for word in words)
    right = not first and _is_of_figures(values)
    return [word.rjust(width) if right else word.ljust(width) for word in words]


def _is_of_figures(values: list[str | float]) -> bool:
    """Whether a column holds figures: numbers among which a word may stand ("never"), or text that begins as one."""
    if any(isinstance(value, (int, float)) for value in values):
        return True
    return all(FIGURE.match(str(value)) for value in values)


def finite(rows: list[dict[str, str | float]]) -> list[dict[str, str | float | None]]:
    """JSON knows neither NaN nor infinity: they become null."""
    return [
        {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()} for row in rows
    ]


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """The figures as a file, whole or not at all."""
    write_whole(path, json.dumps(figures, indent=2).encode() + b"\n")
