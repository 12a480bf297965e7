"""Do two decoders that share a mixture over their codes carry the classes of one set of digits over to the other?

    JIIO_DATA=DIR python -m benchmarks.generate.transfer --output transfer.json   # about 10 minutes; --fast: 1

MNIST and USPS, both at 16 x 16 pixels; 5,000 images of each. All images of the source have a label, 10, 100 or 1,000
of the target; then the other way round. Accuracy on test images of the target, of: the component that answers for the
code (SharedDecoders); the same of the target alone, without a source; and of a classifier of as many weights as a
decoder, trained on the target's labels alone, and on those of the source as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.models import DenseConfig, ModelConfig, build
from jiio.outputs.seeds import derive, generator
from jiio.tasks.generate.shared import UNKNOWN, SharedDecoders, SharedMixture
from jiio.tasks.images.batches import batch_indices
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.solving.latent import LatentRestorer

DIGITS = ("mnist", "usps")
IMAGES, SIZE, LATENT, BATCH = 5000, 16, 16, 32
CELL = DenseConfig(96, gain=0.7, scaling="spectral")
ALPHA = 1.0  # weight of the recognition of labelled images, as Kingma et al. 2014 have one
NOISE = 0.05  # v, as the recipe of digits has it


@dataclass(frozen=True, eq=False)
class Domain:
    """Images with a label (n, 1, 16, 16), all images to train on, and those to test on."""

    x: Tensor
    y: Tensor
    all: Tensor
    test: Tensor
    truth: Tensor


def domain(name: str, seed: int, labels: int, options: argparse.Namespace) -> Domain:
    """labels: how many images have one, as many of each class as can be; drawn by the seed."""
    found = load_images(DataConfig(family=name, size=SIZE), data_root=options.data_root)
    truth, test_truth = found.train_labels, found.test_labels
    assert truth is not None and test_truth is not None
    order = torch.randperm(len(found.train), generator=generator(seed, name))[:IMAGES]
    x, y = found.train[order], truth[order]

    # In turns of the classes: with ten labels there is one of each.
    rank = torch.zeros_like(y)
    for label in range(10):
        rank[y == label] = torch.arange(int((y == label).sum()))
    known = rank.argsort(stable=True)[:labels]
    some = torch.randperm(len(found.test), generator=generator(0, name, "test"))[: options.images]
    return Domain(x[known], y[known], x, found.test[some], test_truth[some])


def mixed(data: Domain, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """A batch, half of it with labels, half without."""
    half = BATCH // 2
    a = batch_indices(len(data.x), half, seed=derive(seed, "labelled"), step=step)
    b = batch_indices(len(data.all), half, seed=derive(seed, "all"), step=step)
    return torch.cat([data.x[a], data.all[b]]), torch.cat([data.y[a], torch.full((half,), UNKNOWN)])


def shared(seed: int, data: dict[str, Domain], options: argparse.Namespace) -> SharedDecoders:
    """Trained on all of the domains."""
    torch.manual_seed(derive(seed, "shared"))
    plan = ModelConfig(CELL, (LATENT,), "image", (1, SIZE, SIZE), "none")
    decoders = {name: LatentRestorer(build(plan), part.all.mean(0), prior=NOISE) for name, part in data.items()}
    model = SharedDecoders(decoders, SharedMixture(10, LATENT), max_steps=15)

    def loss(step: int) -> Tensor:
        total = torch.zeros(())
        for name, part in data.items():
            x, y = mixed(part, derive(seed, name), step)
            code = model.codes(name, x, y).x.nan_to_num()
            noise = torch.randn(len(x), LATENT, generator=generator(seed, name, "noise", step))
            total = total + model.bound(name, x, y, code, noise).mean()
            told = y != UNKNOWN
            total = total + ALPHA * model.recognition(name, x[told], y[told]).nan_to_num().mean()
        return total / len(data)

    descend(model.parameters(), loss, Course(half_cosine(5e-3, rise=25)), Steps(options.steps))
    return model.eval()


def classifier(seed: int, data: list[Domain], options: argparse.Namespace) -> jiio.EquilibriumModel:
    """Of the size of a decoder, trained on what has a label; two domains make half of a batch each."""
    torch.manual_seed(derive(seed, "classifier"))
    model = build(ModelConfig(CELL, (1, SIZE, SIZE), "classifier", (10,)), on_failure="ignore")

    def loss(step: int) -> Tensor:
        drawn = []
        for i, part in enumerate(data):
            chosen = batch_indices(len(part.x), BATCH // len(data), seed=derive(seed, i), step=step)
            drawn.append((part.x[chosen], part.y[chosen]))
        x, y = map(torch.cat, zip(*drawn, strict=True))
        return F.cross_entropy(model(x), y)

    descend(model.parameters(), loss, Course(half_cosine(5e-3, rise=25)), Steps(options.steps))
    return model.eval()


@torch.no_grad()
def accuracy(say: Callable[[Tensor], Tensor], data: Domain) -> float:
    """Of scores (B, 10) of test images."""
    return float((torch.cat([say(part) for part in data.test.split(250)]).argmax(1) == data.truth).double().mean())


def one(seed: int, source: str, labels: int, options: argparse.Namespace) -> Row:
    """Every way, from one source, with so many labels of the target."""
    target = next(name for name in DIGITS if name != source)
    data = {source: domain(source, seed, IMAGES, options), target: domain(target, seed, labels, options)}

    # What the source adds is the difference of the first two; what the mixture is worth, that to the classifiers.
    both, alone = shared(seed, data, options), shared(seed, {target: data[target]}, options)
    own = classifier(seed, [data[target]], options)
    pooled = classifier(seed, list(data.values()), options)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (both.decoder(target), own)]
    return {
        "from, to": f"{source}, {target}",
        "labels": labels,
        "shared mixture": accuracy(lambda x: both.classes(target, x), data[target]),
        "mixture, target alone": accuracy(lambda x: alone.classes(target, x), data[target]),
        "classifier, target": accuracy(own, data[target]),
        "classifier, both": accuracy(pooled, data[target]),
        "shared mixture on its source": accuracy(lambda x: both.classes(source, x), data[source]),
        "weights of a decoder": sizes[0],
        "of a classifier": sizes[1],
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Both ways, all numbers of labels, all seeds."""
    found = [
        rows.each(f"{source} {labels} {seed}", one, seed, source, labels, options)
        for seed in range(options.seeds)
        for labels in (10, 100, 1000)
        for source in DIGITS
    ]
    order = sorted(found, key=lambda row: (row["from, to"], row["labels"]))
    show("Accuracy on the target: median (lowest to highest seed)", over_seeds(order, "from, to", "labels"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 10, "images": 100})
    made.number("--steps", 250, "steps of every training")
    made.number("--images", 1000, "test images of every set")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
