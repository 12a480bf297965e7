"""Where starts of joint solves are compared: models of restore, generate and meta, trained for so many seconds of the
processor and held, with cases to learn from and a case to be measured on; and the shipped prior.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.generate import generators
from benchmarks.trainings import for_seconds
from jiio.outputs.seeds import generator
from jiio.tasks.frame.load import build
from jiio.tasks.generate.generator import EXACT
from jiio.tasks.images.batches import training_batch
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.maps.base import Denoise, Inpaint, random_mask
from jiio.tasks.meta.episodes import Episodes, episodes
from jiio.tasks.meta.learner import FewShotLearner
from jiio.tasks.meta.task import Meta, MetaConfig
from jiio.tasks.restore.imagespace import ImageRestorer, Strength
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.solving.amortised import support_observation
from jiio.tasks.solving.latent import LatentRestorer
from jiio.tasks.solving.learning import Posed

SETS = ("restore-faces", "restore-celeba", "generate-faces", "generate-celeba", "generate-mnist")
SETS += ("meta-glyphs", "meta-omniglot", "prior-noise", "prior-holes")
OFFLINE = ("restore-faces", "generate-faces", "meta-glyphs")


@dataclass(frozen=True)
class Arena:
    """learn: number of a batch -> training case, None where no start is trained. test: the case that is measured."""

    learn: Callable[[int], Posed] | None
    test: Posed


def latent(model: LatentRestorer, y: Tensor, operator: Any) -> Posed:
    """The case of a restorer or generator."""
    return model.problem(y, operator), model.start(y), model.observation(y, operator)


def restore(family: str, seed: int, options: argparse.Namespace) -> Arena:
    values: dict[str, Any] = {"task": "restore", "seed": seed, "model": generators.SETS[family]["model"]}
    values["data"] = {"family": family, "test_limit": options.samples, **generators.SETS[family]["data"]}
    # A small hole, and noise: enough for the code not to be determined by the pixels alone.
    values["corruption"] = {"name": "BoxHole", "options": {"side": 8, "sigma": 0.05}}
    values["model"] = values["model"] | {"cell": generators.CELL, "prior": 0.1, "jacobian": 0.1}
    values["joint"] = {"max_steps": 40, "adjoint": {"name": "Implicit"}}
    config = build(RestoreConfig, values)
    task = Restore(config, data_root=options.data_root)
    model, _ = for_seconds(task, f"restore-{family}-{seed}", options.seconds, generators.RATE, options.cache)
    assert isinstance(model, LatentRestorer)

    def learn(step: int) -> Posed:
        clean = training_batch(task.images.train, config.data, seed=seed, step=step)
        operator = task.draw(clean, "start", step)
        return latent(model, operator.measure(clean, generator(seed, "start noise", step)), operator)

    case = task.case(task.images.test, "test")
    return Arena(learn, latent(model, case.y, case.operator))


def generate(family: str, seed: int, options: argparse.Namespace) -> Arena:
    config = generators.plan(family, "Joint", seed, test=options.samples)
    task, model, _ = generators.trained(config, options.seconds, cache=options.cache, data_root=options.data_root)

    def learn(step: int) -> Posed:
        return latent(model, training_batch(task.images.train, config.data, seed=seed, step=step), EXACT)

    return Arena(learn, latent(model, task.images.test, EXACT))


def meta(family: str, seed: int, options: argparse.Namespace) -> Arena:
    values = {"task": "meta", "seed": seed, "data": {"family": family, "ways": 5, "shots": options.shots}}
    values["data"]["batch_size"] = 16
    task = Meta(build(MetaConfig, values), data_root=options.data_root)
    model, _ = for_seconds(task, f"meta-{family}-{options.shots}-{seed}", options.seconds, 3e-3, options.cache)
    assert isinstance(model, FewShotLearner)

    @torch.no_grad()
    def case(batch: Episodes) -> Posed:
        support = model.images(batch.support)
        seen = support_observation(support.u, batch.ways)
        return model.problem(support, batch.ways), model.start(len(seen)), seen

    # Of the training classes, turned; the test case is of classes that no training has seen.
    def learn(step: int) -> Posed:
        found = episodes(task.train, task.config.data, seed=seed, purpose="start", number=step, tasks=32, turn=True)
        return case(found)

    drawn = task.test.draw(
        options.samples, ways=5, shots=options.shots, queries=1, source=generator(seed, "test episodes")
    )
    return Arena(learn, case(drawn))


def prior(family: str, seed: int, options: argparse.Namespace) -> Arena:
    """The shipped prior at one level, the image itself the unknown: how much any start could save there."""
    restorer = load_restorer("prior", "prior-grey")
    assert isinstance(restorer, ImageRestorer)
    images = load_images(DataConfig(family="patches", size=32, test_limit=6)).test
    source, holes = generator(seed, "prior"), family == "holes"
    mask = random_mask(len(images), 32, 32, missing=0.7, generator=source)
    operator = Inpaint(mask, 0.02) if holes else Denoise(0.1)
    y, level = operator.measure(images, source), 0.05 if holes else 0.1
    problem = restorer.problem(y, operator, level=level, strength=Strength(levels=(level,)))
    return Arena(None, (problem, operator.start(y), y.flatten(1)))


KINDS = {"restore": restore, "generate": generate, "meta": meta, "prior": prior}


def arena(name: str, seed: int, options: argparse.Namespace) -> Arena:
    """One of :data:`SETS`."""
    kind, _, family = name.partition("-")
    return KINDS[kind](family, seed, options)
