"""What benchmarks say: progress on standard error, tables and single figures on standard output."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jiio.outputs.tables import table

Row = dict[str, Any]
PRINTED: list[str] = []  # what this run put on standard output so far; the harness keeps it beside the figures


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def show(title: str, rows: Sequence[Row]) -> None:
    """A table on standard output."""
    _out(f"\n{title}\n\n{table([{key: cell(value) for key, value in row.items()} for row in rows])}")


def show_line(name: str, text: str) -> None:
    """One figure below a table."""
    _out(f"{name}: {text}")


def _out(text: str) -> None:
    PRINTED.extend(text.split("\n"))
    print(text, flush=True)


def show_lines(rows: Sequence[Row], digits: int = 3) -> None:
    """Below a table, the spread over rows of the same keys, one line each."""
    for key in rows[0]:
        show_line(key, spread([row[key] for row in rows], digits))


def cell(value: Any) -> str | float:
    """A figure as it stands in a table; never is said in words."""
    if isinstance(value, float):
        return "never" if math.isinf(value) else "-" if math.isnan(value) else value
    return str(value)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and range over the seeds, in words; "-" where nothing could be measured for some seed."""
    if not values or any(math.isnan(v) for v in values):
        return "-"
    words = ["never" if math.isinf(v) else f"{v:.{digits}g}" for v in sorted(values)]
    middle = statistics.median_low(values)
    text = "never" if math.isinf(middle) else f"{middle:.{digits}g}"
    return text if len(values) == 1 else f"{text} ({words[0]} to {words[-1]})"


def percent(shares: Sequence[float], digits: int = 3) -> str:
    """The spread of shares, in per cent."""
    return spread([round(100 * share, 4) for share in shares], digits)


def over_seeds(rows: Iterable[Row], *heads: str, digits: int = 3, said: Callable[..., str] = spread) -> list[Row]:
    """One line for all rows that agree in ``heads``, in the order in which they come: the spread of every other figure.

    Left out are the seed and what is not a single number; a figure that some rows of a line lack is "-". said: how the
    values of one figure are put into words.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(head) for head in heads), []).append(row)

    lines = []
    for named, group in groups.items():
        figures = {key: value for key, value in group[0].items() if key not in (*heads, "seed")}
        keys = [key for key, value in figures.items() if isinstance(value, (int, float))]
        line = {head: name for head, name in zip(heads, named, strict=True) if name is not None}
        lines.append(line | {key: said([float(row.get(key, math.nan)) for row in group], digits) for key in keys})
    return lines
