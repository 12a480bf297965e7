"""Few-shot learning with joint, nested and first-order adaptation: accuracy after equal processor time, and its cost.

The same network and episodes; 600 test tasks of each size on new classes, 95 % interval over the tasks. Beside it the
same weights without adaptation, and the nearest support image in pixels. The cost of an adaptation is in evaluations
plus VJPs of one task.

    JIIO_DATA=DIR python benchmarks/meta.py --cache learners --output meta.json

With --cache, a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import harness
import torch
from timed import train_for

from jiio.outputs.seeds import derive
from jiio.tasks.frame.load import build
from jiio.tasks.meta.learner import FewShotLearner
from jiio.tasks.meta.task import Meta, MetaConfig

WAYS = ("Joint", "Nested", "FirstOrder")
RATE = 3e-3


def one(way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one learner and measure it."""
    values = {"task": "meta", "seed": seed, "adaptation": {"name": way}}
    values["data"] = {"family": options.family, "ways": 10, "batch_size": 8}
    values["test"] = {"tasks": options.tasks}
    task = Meta(build(MetaConfig, values), data_root=options.data_root)
    torch.manual_seed(derive(seed, "model"))
    model = task.model()
    assert isinstance(model, FewShotLearner)
    step = train_for(options.seconds, task, model, seed, RATE)
    return {"adaptation": way, "seed": seed, "steps": step, "rows": task.evaluate(model.eval())}


def run(options: argparse.Namespace) -> harness.Row:
    runs = []
    for seed in range(1 if options.fast else options.seeds):
        for way in WAYS:
            name = f"meta-{options.family}-{way}-{seed}-{options.seconds:g}-{options.tasks}"
            runs.append(harness.kept(options.cache, name, lambda w=way, s=seed: one(w, s, options)))
            harness.say(str(runs[-1]))
    table = []
    for way in WAYS:
        mine = [found for found in runs if found["adaptation"] == way]
        for i, row in enumerate(mine[0]["rows"]):
            same = [found["rows"][i] for found in mine]
            line = {"trained with": way, "steps": harness.spread([float(f["steps"]) for f in mine], 4)}
            line |= {key: row[key] for key in ("task", "method")}
            for key in ("accuracy", "+-", "evaluations + VJPs"):
                line[key] = harness.spread([float(r[key]) for r in same])
            table.append(line)
    harness.show(
        f"{options.family}, {options.seconds:g} s each, {options.tasks} test tasks: median (range) of seeds", table
    )
    return {"runs": runs}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--family", default="omniglot", help="labelled images (default omniglot; glyphs need no data)")
    made.add_argument("--seconds", type=float, default=180.0, help="processor seconds of every training (default 180)")
    made.add_argument("--tasks", type=harness.positive, default=600, help="test tasks of each size (default 600)")
    sys.exit(harness.main(made, run))
