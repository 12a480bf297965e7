"""The trellis equilibrium beside the DEQ transformer, at equal parameters and equal time: characters or words.

    JIIO_DATA=DIR python -m benchmarks.language.trellis --output trellis.json     # about 4 minutes; --fast: 1
    JIIO_DATA=DIR python -m benchmarks.language.trellis --family wikitext-2 --unit words --seconds 20

Per seed five models of the same number of parameters, each trained for so many seconds of the processor: the trellis
equilibrium; the DEQ transformer with a residual stream, and as published (input to attention alone); the transformer
unrolled to four layers; and three explicit layers of a Transformer-XL. By words the vocabulary has 10,000 of them, and
an adaptive softmax. Figures: perplexity on held-out text, the steps that the time was enough for, evaluations of a
segment, and what one training step needs of memory. It is an early stage of training: nothing here says where these
models end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Parser, main
from benchmarks.language.depths import of_a_step
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import for_seconds
from jiio.tasks.frame.load import build
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.task import Language

ARMS: dict[str, dict[str, Any]] = {
    # A token hears of the past through its neighbour alone, so an equilibrium takes up to the length of a segment.
    "trellis": {"depth": {"name": "Trellis"}, "solve": {"max_steps": 64}},
    "transformer, with stream": {},
    "transformer, as published": {"model": {"injection": "attention"}},
    "transformer, 4 layers, tied": {"depth": {"name": "WeightTied", "options": {"layers": 4}}},
    "transformer, 3 layers, explicit": {"depth": {"name": "Explicit", "options": {"layers": 3}}},
}


def configuration(arm: str, seed: int, options: argparse.Namespace) -> LanguageConfig:
    """One training."""
    data = {"family": options.family, "unit": options.unit, "vocabulary": 10_000, "batch_size": 8}
    cutoffs = [] if options.unit == "characters" else [1000, 4000]
    changed = dict(ARMS[arm])
    model = {"inner": 512, "memory": 64, "cutoffs": cutoffs} | changed.pop("model", {})
    values = {"seed": seed, "data": data | {"valid_limit": options.valid}, "model": model}
    return build(LanguageConfig, values | changed | {"optimiser": {"rate": options.rate, "clip": 0.5}})


def one(arm: str, seed: int, options: argparse.Namespace) -> Row:
    """Train for the time, and measure on held-out text."""
    task = Language(configuration(arm, seed, options), data_root=options.data_root)
    model, steps = for_seconds(task, f"{arm}-{seed}", options.seconds, options.rate, options.cache)
    (row,) = task.evaluate(model)
    named = {key.partition(" per ")[0]: value for key, value in row.items()}
    return {
        "model": arm,
        "seed": seed,
        "perplexity": named["perplexity"],
        "bits": named["bits"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "evaluations": row["evaluations per segment"],
        "converged": row["converged"],
    }


def memory(arm: str, options: argparse.Namespace) -> Row:
    """What one training step needs."""
    return of_a_step(Language(configuration(arm, 0, options), data_root=options.data_root))


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All models and seeds."""
    found = [rows.each(f"{arm}/{seed}", one, arm, seed, options) for seed in range(options.seeds) for arm in ARMS]
    title = f"{options.family}, {options.unit}, {options.seconds:g} s each, {options.seeds} seed(s): median (range)"
    show(title, over_seeds(found, "model", digits=4))
    needs = [{"model": arm} | rows.each(f"memory/{arm}", memory, arm, options) for arm in ARMS]
    show("Memory of one training step on 8 segments of 64", needs)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "seconds": 3.0, "valid": 2000})
    made.add_argument("--family", default="ptb", help="the text (default ptb)")
    made.add_argument(
        "--unit", choices=("characters", "words"), default="characters", help="of text (default characters)"
    )
    made.seconds("--seconds", 8.0, "of the processor for each training")
    made.seconds("--rate", 0.004, "learning rate")
    made.number("--valid", 4_000, "validation tokens")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
