"""Does the fit of a generator of digits tell digits from other images? AUROC, digits against other sets.

    JIIO_DATA=DIR python -m benchmarks.generate.ood --cache generators --output ood.json
    # about 10 minutes; --fast: 1

Scores of an image: the objective of its fit; its two parts, error and prior; the surprise (Laplace approximation of
minus the log likelihood); and against the traits of training images (jiio.tasks.generate.strange) typicality on both
sides, and the surprise of residual and code. Scores of a group of images: the mean of the objective, the base line, and
two-sample statistics of the traits. 0.5 tells nothing, 1 everything; below 0.5 the other images look *more* like digits
than digits do, the failure of likelihoods that Nalisnick et al. (2019) describe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.generate.generators import plan, trained
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, say, show
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import InputError
from jiio.tasks.generate.fit.fit import fit_images, surprise
from jiio.tasks.generate.generator import LatentGenerator
from jiio.tasks.generate.samples import auroc
from jiio.tasks.generate.strange import Familiar, traits, traits_of
from jiio.tasks.images.batches import resized
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.meta.episodes import EpisodeConfig, load_classes

LIKELIHOODS = ("objective", "error", "prior")
POINTS = ("typicality", "residual_surprise", "code_surprise")
GROUPS = ("group_typicality", "kolmogorov", "energy", "discrepancy")
DRAWN = 200  # groups of every set
SIZES = (5, 10)  # of the groups


def others(count: int, root: Path | None) -> dict[str, Tensor]:
    """Sets of images (count, 1, 28, 28) that are no digits; those that are not there are passed over."""
    found: dict[str, Tensor] = {}
    for family in ("cifar10", "celeba", "faces", "patches"):
        try:
            found[family] = load_images(DataConfig(family=family, size=28, test_limit=count), data_root=root).test
        except InputError as error:
            say(str(error))
    for family in ("omniglot", "glyphs"):
        try:
            images = load_classes(EpisodeConfig(family=family), data_root=root)[1].images
            found[family] = images[torch.randperm(len(images), generator=generator(0, family))[:count]]
        except InputError as error:
            say(str(error))

    # And two that are no pictures at all.
    draw = generator(0, "noise")
    found["uniform noise"] = torch.rand(count, 1, 28, 28, generator=draw)
    found["constant"] = torch.rand(count, 1, 1, 1, generator=draw).expand(-1, -1, 28, 28).contiguous()
    return found


def scores(model: LatentGenerator, familiar: Familiar, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """(N,) by name, larger is stranger; and the traits of the images (N, t)."""
    fits = [(part, fit_images(model, part)) for part in images.split(100)]
    found = {name: torch.cat([getattr(fit, name) for _, fit in fits]) for name in LIKELIHOODS}
    found["surprise"] = torch.cat([surprise(model, fit) for _, fit in fits])
    left = torch.cat([traits(part, fit) for part, fit in fits])
    return found | {name: getattr(familiar, name)(left) for name in POINTS}, left


def grouped(familiar: Familiar, objective: Tensor, left: Tensor, size: int) -> dict[str, Tensor]:
    """(200,) by name, of groups of ``size`` images that are drawn from a set with these objectives and traits."""
    source = generator(0, "groups", size)
    groups = torch.stack([torch.randperm(len(left), generator=source)[:size] for _ in range(DRAWN)])
    found = {"mean objective": objective[groups].mean(1)}
    return found | {name: getattr(familiar, name)(left[groups]) for name in GROUPS}


def one(seed: int, options: argparse.Namespace) -> list[Row]:
    """AUROC of every score for every set: of points, and of groups of every size."""
    config = plan("mnist", "Joint", seed, test=options.images)
    task, model, _ = trained(config, options.seconds, cache=options.cache, data_root=options.data_root)
    familiar = Familiar.of(traits_of(model, task.images.train[: options.known]))
    digits = scores(model, familiar, task.images.test)
    sets = others(options.images, options.data_root)
    sets["digits, upside down"] = task.images.test.flip(2)
    sets["digits, half the size"] = F.pad(resized(task.images.test, 14, 1), (7,) * 4)

    rows = []
    for name, images in sets.items():
        told = scores(model, familiar, images)
        rows.append({"other images": name, "of": 1} | {k: auroc(digits[0][k], told[0][k]) for k in told[0]})
        for size in SIZES:
            a, b = (grouped(familiar, found["objective"], left, size) for found, left in (digits, told))
            rows.append({"other images": name, "of": size} | {k: auroc(a[k], b[k]) for k in a})
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    found = [row for seed in range(options.seeds) for row in rows.each(str(seed), one, seed, options)]
    for size in (1, *SIZES):
        what = "points" if size == 1 else f"groups of {size}"
        title = f"AUROC, {options.images} test digits against others, {what}: median (lowest to highest seed)"
        show(title, over_seeds([row for row in found if row["of"] == size], "other images", "of"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "seconds": 5.0, "images": 20, "known": 50})
    made.seconds("--seconds", 60.0, "processor seconds of every training")
    made.number("--images", 100, "images of every set")
    made.number("--known", 600, "training images whose traits are familiar")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
