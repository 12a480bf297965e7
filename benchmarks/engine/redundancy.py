"""Do equilibria learn features from redundancy reduction (Barlow Twins) without labels?

    JIIO_DATA=DIR python -m benchmarks.engine.redundancy --output redundancy.json     # about 3 minutes; --fast: 1

Digits of 14 x 14 pixels, a dense cell. Per seed a linear probe (ridge regression on few labels, chosen in the same way
for all) on: the pixels; the equilibrium of random weights; that of weights trained without labels, by either kind of
the loss; and, as an upper end, that of weights trained as a classifier on *all* the labels, for as many steps. Figures:
test accuracy of the probe, and the mean size of the correlation of two different features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.outputs.seeds import derive
from jiio.tasks.classify.data import labelled_batch
from jiio.tasks.classify.redundancy import TARGETS, RedundancyReduction, features, redundancy
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # of the probe, times the number of labels


def task_of(seed: int, options: argparse.Namespace) -> Classify:
    """The digits and the network."""
    data = {"family": "mnist", "size": 14, "batch_size": 128, "train_limit": 20_000, "test_limit": 2_000}
    cell = {"name": "Dense", "options": {"features": options.features}}
    config = build(ClassifyConfig, {"task": "classify", "seed": seed, "data": data, "model": {"cell": cell}})
    return Classify(config, data_root=options.data_root)


def fresh(task: Classify) -> jiio.EquilibriumModel:
    """The same random weights for every arm of a seed."""
    torch.manual_seed(derive(task.config.seed, "model"))
    model = task.model()
    assert isinstance(model, jiio.EquilibriumModel)
    return model


def pretrained(task: Classify, kind: str, options: argparse.Namespace) -> jiio.EquilibriumModel:
    """Trained by the loss on two views, without a label."""
    model, views = fresh(task), RedundancyReduction(kind=kind, off=options.off)
    weights = [p for name, p in model.named_parameters() if not name.startswith("head")]

    def loss(step: int) -> Tensor:
        x, _ = labelled_batch(task.data, task.config.data, seed=task.config.seed, step=step)
        source = torch.Generator().manual_seed(derive(task.config.seed, "views", step))
        seen = [features(model.solve(views.view(x, source)).z) for _ in range(2)]
        return redundancy(*seen, off=views.off, kind=kind)

    descend(weights, loss, Course(half_cosine(options.rate)), Steps(options.steps))
    return model


def supervised(task: Classify, options: argparse.Namespace) -> jiio.EquilibriumModel:
    """Trained as a classifier."""
    model = fresh(task)

    def loss(step: int) -> Tensor:
        x, y = labelled_batch(task.data, task.config.data, seed=task.config.seed, step=step)
        return F.cross_entropy(model(x), y)

    descend(model.parameters(), loss, Course(half_cosine(options.rate)), Steps(options.steps))
    return model


def probe(train: Tensor, y: Tensor, test: Tensor, labels: Tensor) -> float:
    """Test accuracy in per cent of ridge regression on the digits' classes; its weight by a fifth that is held out."""
    mean, size = train.mean(0), train.std(0) + 1e-6
    train, test = (torch.cat([(v - mean) / size, torch.ones(len(v), 1)], 1).double() for v in (train, test))
    wanted, held = F.one_hot(y, 10).double(), torch.arange(len(y)) % 5 == 0

    def fitted(rows: Tensor, ridge: float) -> Tensor:
        a = train[rows]
        return torch.linalg.solve(a.T @ a + ridge * len(a) * torch.eye(a.shape[1]).double(), a.T @ wanted[rows])

    right = [float(((train[held] @ fitted(~held, r)).argmax(1) == y[held]).double().mean()) for r in RIDGES]
    weights = fitted(torch.ones_like(held), RIDGES[max(range(len(RIDGES)), key=right.__getitem__)])
    return 100 * float(((test @ weights).argmax(1) == labels).double().mean())


@torch.no_grad()
def states(model: jiio.EquilibriumModel, x: Tensor) -> Tensor:
    """Features (N, d) of images."""
    return torch.cat([features(model.solve(part, on_failure="ignore").z) for part in x.split(500)])


def one_seed(seed: int, options: argparse.Namespace) -> list[Row]:
    """All features of one seed, under the same probe."""
    task = task_of(seed, options)
    train, y = task.data.train[: options.labels], task.data.train_labels[: options.labels]
    test, labels = task.data.test, task.data.test_labels
    models = {"random weights": fresh(task)}
    models |= {f"redundancy, {kind}": pretrained(task, kind, options) for kind in TARGETS}
    models["supervised, all labels"] = supervised(task, options)

    rows: list[Row] = [
        {"features": "pixels", "seed": seed, "probe": probe(train.flatten(1), y, test.flatten(1), labels)}
    ]
    rows[0]["correlation"] = correlated(test.flatten(1))
    for name, model in models.items():
        shown = states(model, test)
        accuracy = probe(states(model, train), y, shown, labels)
        rows.append({"features": name, "seed": seed, "probe": accuracy, "correlation": correlated(shown)})
    return rows


def correlated(v: Tensor) -> float:
    """The mean size of the correlation of two different features; those that never move are left out."""
    v = v[:, v.std(0) > 1e-4]
    c = torch.corrcoef(v.T).abs()
    return float((c.sum() - len(c)) / (len(c) * (len(c) - 1)))


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    found = [row for seed in range(options.seeds) for row in rows.each(str(seed), one_seed, seed, options)]
    show(f"{options.labels} labels, {options.seeds} seed(s): median (range)", over_seeds(found, "features"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 20})
    made.number("--steps", 60, "training steps")
    made.number("--labels", 500, "labels of the probe")
    made.number("--features", 96, "of the state")
    made.seconds("--rate", 0.004, "learning rate")
    made.seconds("--off", 0.02, "weight of the pairs of different features")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
