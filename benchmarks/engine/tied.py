"""Do sparse masks make a weight-tied network of pictures better? Digits; the same cell tied, masked, untied, solved.

    JIIO_DATA=DIR python -m benchmarks.engine.tied --cell Dense --output tied-dense.json    # about 3 minutes; --fast: 1
    JIIO_DATA=DIR python -m benchmarks.engine.tied --cell Conv --steps 200 --rates 0.01 --output tied-conv.json

Song, Majumder and Lin (2023) claim that a plain weight-tied network beats the equilibrium on pictures, and that a mask
of its own for every layer makes it better still. MNIST of 14 x 14 pixels, cells applied ``--layers`` times. Per seed:
the tied network without masks; with a mask of its own in every layer, at several sparsities; with the same mask in all
layers; layers with weights of their own, once narrower, so that there are as many parameters, and once as wide; and the
equilibrium of the same cell. All have the same batches and steps, and the best of the same rates on 1,000 images that
nothing is trained on; masked weights count as parameters. Figures: test accuracy, parameters, processor seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, percent, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.outputs.seeds import derive
from jiio.tasks.classify.data import Labelled, labelled_batch
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

HELD = 1000  # training images that choose the rate
CELLS: dict[str, Callable[[int], dict[str, Any]]] = {
    "Dense": lambda width: {"features": width, "activation": "relu"},
    "Conv": lambda width: {"channels": width, "groups": 2, "drive": 1.0},
}
WIDTHS = {"Dense": 64, "Conv": 14}
SPARSE = (0.3, 0.5, 0.7)
TIED = "tied"
UNTIED, WIDE, SOLVED = "untied, as many parameters", "untied, as wide", "equilibrium"
ARMS = (TIED, *(f"tied, own masks {s}" for s in SPARSE), "tied, one mask 0.5", UNTIED, WIDE, SOLVED)


def entries(arm: str, layers: int) -> list[dict[str, Any]]:
    """What stands under ``defence`` for an arm."""
    if arm == SOLVED:
        return []
    if arm in (UNTIED, WIDE):
        return [{"name": "UntiedLayers", "options": {"layers": layers}}]
    kind, _, share = arm.removeprefix("tied, ").rpartition(" ")
    masks = {"sparsity": float(share), "masks": "own" if kind == "own masks" else "shared"} if kind else {}
    return [{"name": "TiedLayers", "options": {"layers": layers} | masks}]


def task_of(arm: str, width: int, seed: int, options: argparse.Namespace) -> Classify:
    """The digits and the network of an arm."""
    data = {"family": "mnist", "size": 14, "batch_size": 64, "train_limit": options.images}
    cell = {"name": options.cell, "options": CELLS[options.cell](width)}
    given = {"task": "classify", "seed": seed, "data": data | {"test_limit": options.tests}, "model": {"cell": cell}}
    config = build(ClassifyConfig, given | {"defence": entries(arm, options.layers)})
    return Classify(config, data_root=options.data_root)


def size(arm: str, width: int, options: argparse.Namespace) -> int:
    """Parameters of an arm at a width."""
    config = task_of(arm, width, 0, options).config
    with torch.device("meta"):
        return sum(p.numel() for p in config.build().parameters())


def narrower(options: argparse.Namespace) -> int:
    """The width at which layers of their own weights have most nearly as many parameters as the tied network."""
    own = WIDTHS[options.cell]
    wanted, step = size(TIED, own, options), 1 if options.cell == "Dense" else 2
    return min(range(step, own + 1, step), key=lambda width: abs(size(UNTIED, width, options) - wanted))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """On images (N, C, H, W)."""
    with torch.no_grad():
        return sum(
            float((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True)
        ) / len(x)


def held_out(data: Labelled) -> tuple[Labelled, tuple[Tensor, Tensor]]:
    """Without the last training images, and those."""
    first = Labelled(data.train[:-HELD], data.train_labels[:-HELD], data.test, data.test_labels)
    return first, (data.train[-HELD:], data.train_labels[-HELD:])


def measured(arm: str, width: int, seed: int, options: argparse.Namespace) -> Row:
    """An arm at the best of the rates."""
    task = task_of(arm, width, seed, options)
    data, held = held_out(task.data)
    begin, best, found = time.process_time(), -1.0, 0.0

    # The rate is chosen on images that neither trained nor test.
    for rate in options.rates:
        torch.manual_seed(derive(seed, "model"))
        model = task.model().train()

        def loss(step: int, model: nn.Module = model) -> Tensor:
            x, y = labelled_batch(data, task.config.data, seed=seed, step=step)
            return F.cross_entropy(model(x), y)

        descend(model.parameters(), loss, Course(half_cosine(rate, rise=20)), Steps(options.steps))
        right = accuracy(model.eval(), *held)
        if right > best:
            best, found = right, accuracy(model, data.test, data.test_labels)

    seconds = (time.process_time() - begin) / len(options.rates)
    return {
        "network": arm,
        "seed": seed,
        "accuracy": found,
        "parameters": size(arm, width, options),
        "seconds": seconds,
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Seed by seed, all arms."""
    width = {arm: WIDTHS[options.cell] for arm in ARMS} | {UNTIED: narrower(options)}
    found = [
        rows.each(f"{arm}/{seed}", measured, arm, width[arm], seed, options)
        for seed in range(options.seeds)
        for arm in options.arms
    ]
    plain = {row["seed"]: row["accuracy"] for row in found if row["network"] == TIED}
    lines = over_seeds([{k: row[k] for k in ("network", "accuracy")} for row in found], "network", said=percent)
    for line in lines:
        mine = [row for row in found if row["network"] == line["network"]]
        line["better than tied, seeds"] = sum(row["accuracy"] > plain.get(row["seed"], 1.0) for row in mine)
        line["parameters"] = str(mine[0]["parameters"])
        line["seconds"] = f"{sorted(row['seconds'] for row in mine)[len(mine) // 2]:.3g}"
    show(f"{options.cell}, {options.layers} layers, accuracy in %: median (lowest to highest seed)", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 30, "images": 2000, "tests": 500})
    made.add_argument("--cell", choices=list(CELLS), default="Dense", help="of the networks (default Dense)")
    made.number("--layers", 6, "how often the cell is applied")
    made.number("--steps", 1500, "training steps")
    made.number("--images", 11_000, "training images, of which 1,000 choose the rate")
    made.number("--tests", 10_000, "test images")
    made.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01], help="of Adam (default 0.003 0.01)")
    made.chosen("--arms", ARMS, ARMS, "networks to train")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
