"""Does a density of an equilibrium's features say which images a classifier of digits should refuse?

    JIIO_DATA=DIR python -m benchmarks.generate.rejection --output rejection.json   # about 5 minutes; --fast: 1

Digits of 28 x 28 pixels, a dense cell. Two networks of the same cell: one with a linear head, and one with the head
that gives class and density (DensityHead). AUROC, test digits against other sets, of the largest softmax and the energy
of either, and of the Mahalanobis distance of the first one's states (Lee et al. 2018); typicality is how far log p is
from that of training digits, on either side. Of groups it is Kolmogorov and Smirnov's distance of these scores. Then
the accuracy on the surest part of the test digits, and the share of the other images that is let through where 95 % of
the digits are. Last, with few labels: what images without one are good for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp
from torch import Tensor

import jiio
from benchmarks.generate.ood import others
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.outputs.seeds import derive, generator
from jiio.tasks.classify.rejection import accuracy_at, evidence, scores_of, softmax
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build
from jiio.tasks.generate.samples import auroc
from jiio.tasks.images.batches import resized

CELL = {"name": "Dense", "options": {"features": 64, "gain": 0.7, "scaling": "spectral"}}
GROUP, DRAWN = 10, 200
KEPT = (0.95, 0.8)
Set = dict[str, Tensor]


def trained(seed: int, options: argparse.Namespace, *, labels: int | None, **head: Any) -> tuple[Classify, Any]:
    """A task with its network after so many steps. head: the options of DensityHead; none for a linear head."""
    data = {"family": "mnist", "size": 28, "batch_size": 64, "train_limit": 20_000, "test_limit": options.images}
    data |= {"labels": labels} if head.get("weight") else {"train_limit": labels or 20_000}
    defence = [{"name": "DensityHead", "options": head}] if head else []
    values = {"task": "classify", "seed": seed, "data": data, "model": {"cell": CELL}, "defence": defence}
    task = Classify(build(ClassifyConfig, values), data_root=options.data_root)
    torch.manual_seed(derive(seed, "model"))
    model = task.model()

    descend(model.parameters(), lambda step: task.loss(model, step)[0], Course(half_cosine(3e-3)), Steps(options.steps))
    return task, model.eval()


@torch.no_grad()
def states(model: jiio.EquilibriumModel, images: Tensor) -> Tensor:
    """(N, d)"""
    return torch.cat([model.solve(part, on_failure="ignore").z for part in images.split(250)]).double()


def mahalanobis(task: Classify, model: jiio.EquilibriumModel, sets: Set) -> Set:
    """(N,) by set: minus the squared distance of the states from the nearest class, by the classes' covariance."""
    z, y = states(model, task.data.train[:2000]), task.data.train_labels[:2000]
    means = torch.stack([z[y == label].mean(0) for label in range(10)])
    apart = z - means[y]
    lower = torch.linalg.cholesky(apart.T @ apart / len(z) + 1e-3 * apart.square().mean() * torch.eye(z.shape[1]))

    def nearest(images: Tensor) -> Tensor:
        offset = (states(model, images)[:, None] - means).flatten(0, 1).T
        return -torch.linalg.solve_triangular(lower, offset, upper=False).square().sum(0).view(-1, 10).amin(1)

    return {name: nearest(images) for name, images in sets.items()}


def grouped(sure: Tensor, known: Tensor) -> Tensor:
    """(200,) Kolmogorov and Smirnov's distance from known scores, of groups drawn from these (N,)."""
    source = generator(0, "groups")
    drawn = [sure[torch.randperm(len(sure), generator=source)[:GROUP]].numpy() for _ in range(DRAWN)]
    return torch.tensor([ks_2samp(part, known.numpy(), method="asymp")[0] for part in drawn])


def strangeness(seed: int, options: argparse.Namespace) -> dict[str, list[Row]]:
    """The tables about strange images and about refusing, of one seed."""
    task, plain = trained(seed, options, labels=None)
    _, hybrid = trained(seed, options, labels=None, weight=options.weight)
    test = task.data.test
    sets = {"digits": test, "familiar": task.data.train[-1000:]} | others(options.images, options.data_root)
    sets["digits, upside down"] = test.flip(2)
    sets["digits, half the size"] = F.pad(resized(test, 14, 1), (7,) * 4)

    # How sure each network is of every image of every set, by each way to be sure.
    said = {name: (scores_of(plain, images), scores_of(hybrid, images)) for name, images in sets.items()}
    sure = {
        "linear, softmax": {name: softmax(a) for name, (a, _) in said.items()},
        "linear, energy": {name: evidence(a) for name, (a, _) in said.items()},
        "linear, Mahalanobis": mahalanobis(task, plain, sets),
        "density, softmax": {name: softmax(b) for name, (_, b) in said.items()},
        "density, log p": {name: evidence(b) for name, (_, b) in said.items()},
    }

    # An image may be strange by being too likely.
    usual = sure["density, log p"]["familiar"].mean()
    sure["density, typicality"] = {name: -(log_p - usual).abs() for name, log_p in sure["density, log p"].items()}
    strange = [name for name in sets if name not in ("digits", "familiar")]
    points = [
        {"other images": n, "seed": seed} | {k: auroc(-s["digits"], -s[n]) for k, s in sure.items()} for n in strange
    ]
    groups = [
        {"other images": n, "seed": seed}
        | {k: auroc(grouped(s["digits"], s["familiar"]), grouped(s[n], s["familiar"])) for k, s in sure.items()}
        for n in strange
    ]
    right = {"linear": said["digits"][0].argmax(1) == task.data.test_labels}
    right["density"] = said["digits"][1].argmax(1) == task.data.test_labels
    return {"points": points, "groups": groups, "refused": refused(seed, sure, right, strange)}


def refused(seed: int, sure: dict[str, Set], right: Set, strange: list[str]) -> list[Row]:
    """Accuracy with and without refusing, and what of the strange images is let through, by every way to be sure."""
    rows = []
    for name, told in sure.items():
        correct = right[name.partition(",")[0]]
        row: Row = {"sure by": name, "seed": seed, "all": float(correct.double().mean())}
        row |= {f"surest {share:.0%}": accuracy_at(told["digits"], correct, share) for share in KEPT}
        threshold = told["digits"].double().quantile(0.05)
        let = [float((told[other] >= threshold).double().mean()) for other in strange]
        rows.append(row | {"strange let through": sum(let) / len(let)})
    return rows


def few(seed: int, options: argparse.Namespace) -> list[Row]:
    """Test accuracy with few labels."""
    arms: dict[str, dict[str, Any]] = {
        "linear, labels alone": {},
        "density, labels alone": {"weight": 0.0},
        "density, images without labels": {"weight": options.weight},
        "density, the same, through the features": {"weight": options.weight, "through": True},
    }
    rows = []
    for name, head in arms.items():
        task, model = trained(seed, options, labels=options.labels, **head)
        right = scores_of(model, task.data.test).argmax(1) == task.data.test_labels
        rows.append({"trained with": name, "seed": seed, "accuracy": float(right.double().mean())})
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    seeds = range(options.seeds)
    found = [rows.each(f"strange {seed}", strangeness, seed, options) for seed in seeds]
    for key, head in (("points", "other images"), ("groups", "other images"), ("refused", "sure by")):
        title = {"points": "AUROC, points", "groups": f"AUROC, groups of {GROUP}", "refused": "Refusing"}[key]
        show(f"{title}: median (lowest to highest seed)", over_seeds([row for one in found for row in one[key]], head))
    semi = [row for seed in seeds for row in rows.each(f"few {seed}", few, seed, options)]
    show(f"{options.labels} labels: median (lowest to highest seed)", over_seeds(semi, "trained with"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 20, "images": 60})
    made.number("--steps", 300, "steps of every training")
    made.number("--images", 300, "images of every set")
    made.number("--labels", 100, "labels where they are few")
    made.seconds("--weight", 0.3, "of the density in the loss")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
