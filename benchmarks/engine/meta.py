"""Few-shot learning with joint, nested and first-order adaptation: accuracy after equal processor time, and its cost.

    JIIO_DATA=DIR python -m benchmarks.engine.meta --cache learners --output meta.json
    # about 45 minutes; --fast: 1

The same network and episodes; 600 test tasks of each size on new classes, 95 % interval over the tasks. Beside it the
same weights without adaptation, and the nearest support image in pixels. The cost of an adaptation is in evaluations
plus VJPs of one task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import for_seconds
from jiio.tasks.frame.load import build
from jiio.tasks.meta.task import Meta, MetaConfig

WAYS = ("Joint", "Nested", "FirstOrder")
RATE = 3e-3
HEADS = ("trained with", "task", "method")
FIGURES = ("accuracy", "+-", "evaluations + VJPs")


def one(way: str, seed: int, options: argparse.Namespace) -> list[Row]:
    """Train one learner and measure it: a row for every size of task and way to adapt."""
    values = {"task": "meta", "seed": seed, "adaptation": {"name": way}}
    values["data"] = {"family": options.family, "ways": 10, "batch_size": 8}
    values["test"] = {"tasks": options.tasks}
    task = Meta(build(MetaConfig, values), data_root=options.data_root)
    model, steps = for_seconds(task, f"meta-{options.family}-{way}-{seed}", options.seconds, RATE, options.cache)

    head = {"trained with": way, "steps": steps}
    return [
        head | {key: row[key] for key in ("task", "method")} | {key: float(row[key]) for key in FIGURES}
        for row in task.evaluate(model)
    ]


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All ways of one seed, then the next seed."""
    found = []
    for seed in range(options.seeds):
        for way in WAYS:
            found += rows.each(f"{way}/{seed}", one, way, seed, options)

    title = f"{options.family}, {options.seconds:g} s each, {options.tasks} test tasks: median (range) of seeds"
    show(title, over_seeds(sorted(found, key=lambda row: WAYS.index(row["trained with"])), *HEADS))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "family": "glyphs", "seconds": 5.0, "tasks": 20})
    made.add_argument("--family", default="omniglot", help="labelled images (default omniglot; glyphs need no data)")
    made.seconds("--seconds", 180.0, "processor seconds of every training")
    made.number("--tasks", 600, "test tasks of each size")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
