"""Do the tables of the pages say what the benchmarks wrote?

    python -m benchmarks.pages                             # every table against its record: under a minute
    python -m benchmarks.pages --keep engine.json --as metric

A table with ``<!-- figures: metric -->`` above it is held against ``docs/results/figures/metric.json``, which
``--keep`` lays there from a file that a benchmark (``--output``) or ``jiio compare --json`` wrote: each of its numbers
must be a figure of that file, rounded to the digits that the page shows. The exit code is 1 where one is not, or where
a record is missing. Tables without a mark are counted: nothing stands behind them but the command above them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages import marks, records
from benchmarks.tables import Row, show, show_line
from jiio.checks import JiioError

DOCS = Path(__file__).parents[2] / "docs"


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        "python -m benchmarks.pages", description=__doc__, formatter_class=raw, allow_abbrev=False
    )
    made.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages (default: this project's)")
    made.add_argument("--keep", type=Path, metavar="FILE", help="figures to keep beside the pages")
    made.add_argument("--as", dest="name", metavar="NAME", help="the name of that record")
    made.add_argument("--all", action="store_true", help="list the tables without a record as well")
    return made


def compared(docs: Path, bare: bool) -> Iterator[Row]:
    """One row for every table that has a mark, and for the others if asked."""
    for page in sorted(docs.rglob("*.md")):
        for table in marks.tables(page):
            head = {"page": page.relative_to(docs).as_posix(), "line": table.line, "question": table.heading[:48]}
            if table.records:
                yield head | judged(table, docs / "results" / "figures")
            elif bare:
                yield head | {"records": "-", "numbers": len(table.numbers), "wrong": ""}


def judged(table: marks.Table, home: Path) -> Row:
    """A table against its records."""
    lost = [name for name in table.records if not (home / f"{name}.json").exists()]
    wrong = marks.missing(table, records.known([name for name in table.records if name not in lost], home))
    words = [f"no record {name}" for name in lost] + wrong
    return {"records": " ".join(table.records), "numbers": len(table.numbers), "wrong": ", ".join(words)}


def command(argv: Sequence[str] | None = None) -> int:
    """Parse, keep or compare; the exit code."""
    made = parser()
    options = made.parse_args(argv)
    if (options.keep is None) != (options.name is None):
        made.error("--keep and --as belong together: a file of figures, and its name beside the pages")
    try:
        if options.keep is not None:
            print(records.keep(options.keep, options.name, options.docs / "results" / "figures"))
            return 0
        return report(options.docs, options.all)
    except JiioError as error:
        print(f"{made.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def report(docs: Path, bare: bool) -> int:
    """The comparison, printed; 1 where a table says something else than its record."""
    rows = list(compared(docs, bare))
    if rows:
        show("Tables against the figures behind them", rows)

    every = [table for page in docs.rglob("*.md") for table in marks.tables(page)]
    marked = sum(bool(table.records) for table in every)
    wrong = sum(bool(row["wrong"]) for row in rows)
    show_line("tables with a record", f"{marked} of {len(every)}")
    show_line("tables that say something else", str(wrong))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(command())
