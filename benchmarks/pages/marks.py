"""Tables of the pages that name the records behind them: ``<!-- figures: NAME ... -->`` on the line above."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages.records import NUMBER, value

MARK = re.compile(r"<!-- figures: ([a-z0-9 -]+) -->")
LINK = re.compile(r"\]\([^)]*\)")


@dataclass(frozen=True)
class Table:
    """A table of a page.

    page: its file. line: of the head, from 1. heading: the section. records: names of what it is held against, none
    where it has no mark. numbers: as they are written, those of the head and of the first column left out: they name.
    """

    page: Path
    line: int
    heading: str
    records: tuple[str, ...]
    numbers: tuple[str, ...]


def tables(page: Path) -> Iterator[Table]:
    """The tables of a page in their order."""
    heading, records, lines = "", (), page.read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if mark := MARK.fullmatch(line.strip()):
            records = tuple(mark[1].split())
        elif line.startswith("|") and not lines[at - 1].startswith("|"):
            yield Table(page, at + 1, heading, records, tuple(_numbers(lines[at + 2 :])))
            records = ()
        elif line.strip() and not line.startswith("|"):
            records = ()


def _numbers(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        for text in line.strip().strip("|").split("|")[1:]:
            yield from NUMBER.findall(LINK.sub("]", text))


def missing(table: Table, known: Sequence[float]) -> list[str]:
    """The numbers of a table that no figure rounds to.

    A share may stand in per cent, and a difference with its sign turned; the last digit of a number says how far it was
    rounded.
    """
    figures = np.abs(np.asarray([*known, *(100 * k for k in known)], dtype=float))
    return [word for word in table.numbers if not _among(word, figures)]


def _among(word: str, figures: np.ndarray) -> bool:
    mantissa, _, power = word.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    half = 0.5 * 10.0 ** (int(power or 0) - digits)
    return bool(np.any(np.abs(figures - abs(value(word))) <= half * (1 + 1e-6)))
