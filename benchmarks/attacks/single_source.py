"""Does a fused classifier bear noise, or an adversary, in any one of its sources? Fusion layers and trainings for it.

    python -m benchmarks.attacks.single_source --data-root FOLDER --output single.json
    # about 15 minutes; --fast: 1

Six views of 2,000 digits (UCI multiple features), as in :mod:`.multiview`. Kim and Ghosh (2019) claim that a fused
network is brittle in single sources, that the MaxSSN loss repairs it at little cost, and so does a latent ensemble
layer by its structure alone. Fusions: the sum of linear maps of the views (a concatenation and one layer), their mean,
and the latent layer with and without its L1 norm. Trainings, of equally many steps: clean; noise in all sources;
noise in one source after the other; MaxSSN; an adversary in all sources at once; MaxSSN with an adversary.

Accuracies of 300 test samples: untouched; under Gaussian noise of ``--noise`` per feature in one source, the worst
source for the whole set (the paper's figure) and for each sample; under PGD in one source (L2, ``--radius`` times the
root of its features), likewise; and with all sources corrupted at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.attacks.multiview import OPTIONS, STEPS, VIEWS, accuracy, left, load
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, percent, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.attacks import (
    PGD,
    AbstractAttack,
    LatentEnsemble,
    Margin,
    MultiViewThreat,
    NoiseAttack,
    OneViewThreat,
    Target,
    multi_view_classifier,
)
from jiio.tasks.classify.defences import AbstractDefence, Answers, Batch, CleanTraining
from jiio.tasks.classify.sources import (
    AdversarialAllSources,
    AdversarialMaxSSN,
    AllSources,
    AlternatingSources,
    MaxSSN,
    SparseSources,
)
from jiio.tasks.classify.task import images_of

CLIMB = PGD(steps=STEPS, objective=Margin(), warm=True, tolerance=3e-2)
FUSIONS = {"sum": ("sum", 0.0), "mean": ("mean", 0.0), "latent": ("latent", 0.0), "latent, L1": ("latent", 1e-3)}
TRAININGS = ("clean", "all sources", "in turn", "MaxSSN", "all sources, adversary", "MaxSSN, adversary")
# Every training on the sum; on the other fusions those that tell about the fusion.
ARMS = [
    *(("sum", training) for training in TRAININGS),
    *(("mean", training) for training in ("clean", "all sources", "MaxSSN")),
    *(("latent", training) for training in ("clean", "MaxSSN")),
    *(("latent, L1", training) for training in ("clean", "MaxSSN", "MaxSSN, adversary")),
]


def defences(fusion: str, training: str, sizes: tuple[int, ...], options: argparse.Namespace) -> list[AbstractDefence]:
    """What an arm is trained with."""
    noise, radius = options.noise, options.radius
    found: dict[str, AbstractDefence] = {
        "clean": CleanTraining(),
        "all sources": AllSources(sizes, noise),
        "in turn": AlternatingSources(sizes, noise),
        "MaxSSN": MaxSSN(sizes, noise),
        "all sources, adversary": AdversarialAllSources(sizes, radius),
        "MaxSSN, adversary": AdversarialMaxSSN(sizes, radius),
    }
    weight = FUSIONS[fusion][1]
    return [found[training], *([SparseSources(weight)] if weight else [])]


def fit(fusion: str, training: str, seed: int, options: argparse.Namespace) -> tuple[jiio.EquilibriumModel, float]:
    """A trained network and the processor seconds of its training."""
    sizes, (x, y), _ = load(options.data_root, seed)
    torch.manual_seed(seed)
    model = multi_view_classifier(sizes, 10, features=48, fusion=FUSIONS[fusion][0], **OPTIONS)
    made, draw = defences(fusion, training, sizes, options), torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(x), (100,), generator=draw)
        batch = Batch(Target(model), x[chosen], y[chosen], seed, step)
        at = [(defence, dataclasses.replace(batch, place=i)) for i, defence in enumerate(made)]
        answers = Answers.of(batch.target, batch.x, images_of(at))
        total = torch.stack([F.cross_entropy(answer.logits, batch.y) for answer in answers]).mean()
        terms = [defence.term(view, answers) for defence, view in at]
        return total + sum(term for term in terms if term is not None)

    done = descend(model.parameters(), loss, Course(half_cosine(1e-2), clip=math.inf, decay=1e-4), Steps(options.steps))
    return model.eval(), done.seconds


def worst(
    model: jiio.EquilibriumModel, attack: AbstractAttack, x: Tensor, y: Tensor, threat: OneViewThreat, seed: int
) -> dict[str, Any]:
    """What is left with one source corrupted: of the whole set, by source and the worst, and per sample."""
    broken = []
    for view in threat.alone():
        result = attack(model, x, y, threat.only(view), generator=torch.Generator().manual_seed(seed))
        assert bool((threat.violation(result.x, x) <= threat.slack(x)).all())
        broken.append(result.success)
    shares = [1.0 - float(fell.float().mean()) for fell in broken]
    each = 1.0 - float(torch.stack(broken).any(0).float().mean())
    return {"worst": min(shares), "each": each, "by": dict(zip(VIEWS, shares, strict=True))}


def measured(fusion: str, training: str, seed: int, options: argparse.Namespace) -> Row:
    """One arm, one seed."""
    model, seconds = fit(fusion, training, seed, options)
    sizes, _, (x, y) = load(options.data_root, seed)
    x, y = x[: options.tests], y[: options.tests]
    row: Row = {"fusion": fusion, "training": training, "seed": seed, "clean": accuracy(model, x, y)}

    # Each source at the radius that its own number of features asks for, so that no source is weaker by its size.
    attacks = {"noise": (options.noise, NoiseAttack()), "PGD": (options.radius, CLIMB)}
    for name, (r, attack) in attacks.items():
        radii = tuple(r * n**0.5 for n in sizes)
        one = OneViewThreat("l2", radii, sizes=sizes)
        found = worst(model, attack, x, y, one, seed)
        row |= {f"{name}, worst source": found["worst"], f"{name}, any source": found["each"]}
        row[f"{name}, by source"] = found["by"]
        every = MultiViewThreat("l2", radii, sizes=sizes)
        row[f"{name}, all sources"] = left(model, attack, x, y, every, seed)

    if isinstance(model.inject, LatentEnsemble):
        row["largest share"] = float(model.inject.shares().amax(1).mean())
    return row | {"seconds": seconds}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Seed by seed, all arms."""
    found = [
        rows.each(f"{fusion}/{training}/{seed}", measured, fusion, training, seed, options)
        for seed in range(options.seeds)
        for fusion, training in ARMS
        if training in options.trainings
    ]
    said = [{k: v for k, v in row.items() if k not in ("seconds", "largest share")} for row in found]
    show("accuracy in %: median (lowest to highest seed)", over_seeds(said, "fusion", "training", said=percent))
    costs = [{k: row[k] for k in ("fusion", "training", "seconds")} for row in found]
    show("processor seconds of a training", over_seeds(costs, "fusion", "training"))
    shares = [
        {"fusion": r["fusion"], "training": r["training"], "share": r["largest share"]}
        for r in found
        if "largest share" in r
    ]
    show("latent layers: largest share of one source in a feature, mean", over_seeds(shares, "fusion", "training"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 20, "tests": 60})
    made.number("--steps", 150, "training steps")
    made.number("--tests", 300, "test samples")
    made.seconds("--noise", 3.0, "standard deviation of the noise in each feature")
    made.seconds("--radius", 0.2, "of the adversary, times the root of the features of a view")
    made.chosen("--trainings", TRAININGS, TRAININGS, "ways to train")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
