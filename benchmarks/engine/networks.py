"""The trained networks on which costs are measured; an untrained one contracts so well that nothing would be learnt.

Decoders are trained by jiio itself, through the joint solve with the envelope gradient; classifiers through the
implicit gradient. Both carry the Jacobian penalty of Bai et al. (2021), as equilibrium networks do in practice: how
strongly is written into every report, because a smaller penalty makes the inner solves of the nested methods dearer.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.tables import say
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.diagnostics import jacobian_penalty, spectral_radius
from jiio.layout import detach, leaves
from jiio.models import ConvConfig, DenseConfig, EquilibriumModel, ModelConfig, MultiscaleConfig, build
from jiio.outputs.atomic import write_whole
from jiio.outputs.seeds import derive, generator
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.sources import ImageSet

LOOSE = jiio.Tolerance(1e-5, 1e-3)


@dataclass(frozen=True)
class Recipe:
    """How one network is trained. family: of the images, where it is there. prior: weight of |x|^2, metric_every:
    steps between two measurements of the metric that the training solves in, 0 for none (decoders). norm, radius: of
    the ball (classifiers). network: whose weights it has, where it is not the only one with them.
    """

    name: str
    cell: DenseConfig | ConvConfig | MultiscaleConfig
    size: int
    latent: int = 0
    steps: int = 300
    batch: int = 32
    rate: float = 5e-3
    jacobian: float = 1.0
    prior: float = 1e-2
    radius: float = 0.0
    joint_steps: int = 40
    family: str = "celeba"
    metric_every: int = 0
    norm: str = "L2"
    network: str = ""

    @property
    def trained(self) -> Recipe:
        """What the weights depend on."""
        return dataclasses.replace(self, name=self.network or self.name, norm="L2", radius=0.0, network="")


DENSE = Recipe("dense decoder", DenseConfig(96, gain=0.7), 24, latent=16)
DIGITS = Recipe("dense classifier", DenseConfig(64, gain=0.7), 14, steps=300, batch=128, rate=3e-3, radius=0.5)
MULTISCALE = Recipe(
    "multiscale decoder",
    MultiscaleConfig.preset("tiny", halvings=1, activation="silu"),
    24,
    latent=16,
    steps=250,
    batch=16,
    rate=2e-3,
    prior=0.1,
    joint_steps=12,
    metric_every=10,
)
MADE = (
    DENSE,
    dataclasses.replace(DENSE, name="faces decoder", family="faces"),
    dataclasses.replace(DENSE, name="dense decoder, 64 x 64", size=64, steps=200, joint_steps=20),
    MULTISCALE,
    DIGITS,
    dataclasses.replace(DIGITS, name="dense classifier, Linf", norm="Linf", radius=0.05, network=DIGITS.name),
)
RECIPES = {recipe.name: recipe for recipe in MADE}
BALLS = {"L2": jiio.L2Ball, "Linf": jiio.LinfBall}


@dataclass(frozen=True)
class Setting:
    """One trained network with held-out samples. make: sample numbers (N,) -> their problem. start: (B, ...)."""

    recipe: Recipe
    data: str
    make: Callable[[Tensor], jiio.Problem]
    start: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def whole(self) -> jiio.Problem:
        """The problem of all samples."""
        return self.make(torch.arange(len(self.start)))


@dataclass(frozen=True)
class Place:
    """Where a network comes from. samples: of the held-out ones. root: of the data sets."""

    seed: int
    samples: int
    cache: Path
    root: Path | None


def images(family: str, fallback: str, size: int, root: Path | None) -> tuple[str, ImageSet]:
    """The family of images, or the one that needs no files where it is missing."""
    try:
        return family, load_images(DataConfig(family=family, size=size, train_limit=10_000), data_root=root)
    except InputError:
        say(f"{family}: not found, using {fallback}")
    if fallback == "faces":
        return fallback, load_images(DataConfig(family="faces", size=size))
    return fallback, faces_or_not(size)


def faces_or_not(size: int) -> ImageSet:
    """Two classes that need no files: the faces of scikit-image, and pieces of pictures without one."""
    from skimage.data import lfw_subset

    from jiio.tasks.images.batches import resized

    pictures = resized(torch.from_numpy(lfw_subset()).float()[:, None], size, 1)
    labels = (torch.arange(200) < 100).long()  # the first half are faces
    held = torch.arange(200) % 5 == 4
    return ImageSet(pictures[~held], pictures[held], labels[~held], labels[held])


def setting(name: str, place: Place) -> Setting:
    """Train (or load) the network ``name`` and take the first ``samples`` held-out images."""
    recipe = RECIPES[name]
    return decoder(recipe, place) if recipe.latent else classifier(recipe, place)


def decoder(recipe: Recipe, place: Place) -> Setting:
    """Latent fitting: minimise |decode(x) - y|^2 + prior |x|^2 over x, from x = 0."""
    family, pictures = images(recipe.family, "faces", recipe.size, place.root)
    mean, shape = pictures.train.mean(0), (1, recipe.size, recipe.size)
    torch.manual_seed(derive(place.seed, recipe.name))
    model = build(ModelConfig(recipe.cell, (recipe.latent,), "image", shape, "none"))

    def problem(y: Tensor) -> jiio.Problem:
        def objective(prediction: Tensor, x: Tensor) -> Tensor:
            return (prediction + mean - y).square().flatten(1).sum(1) + recipe.prior * x.square().sum(1)

        return model.problem(objective)

    settings: dict[str, Any] = {"tolerance": LOOSE, "max_steps": recipe.joint_steps, "on_failure": "ignore"}
    foreseen = Foreseen(recipe.metric_every)

    def loss(chosen: Tensor) -> Tensor:
        held = problem(pictures.train[chosen])
        found = foreseen.solve(held, torch.zeros(len(chosen), recipe.latent), settings)
        # At constants: the penalty shapes the cell where the solve ended, and does not move the end.
        penalty = jacobian_penalty(held.cell, detach(found.z), detach(found.x)).mean()
        return found.value.mean() + recipe.jacobian * penalty

    train(model, recipe, family, len(pictures.train), loss, place)
    y = pictures.test[: place.samples]
    start = torch.zeros(len(y), recipe.latent)
    return Setting(recipe, family, lambda index: problem(y[index]), start, contraction(model, start + 0.1))


class Foreseen:
    """Solves of a model in training; ``every`` of them, its sensitivity is measured again (0: never)."""

    def __init__(self, every: int) -> None:
        self.every, self.done = every, 0
        self.sensitivity: jiio.Sensitivity | None = None

    def solve(self, problem: jiio.Problem, x0: Tensor, settings: dict[str, Any]) -> jiio.Solution:
        """The plain solve, or the one in the metric."""
        if not self.every:
            return jiio.solve(problem, x0, **settings)
        if self.done % self.every == 0:
            self.sensitivity = jiio.Sensitivity.of(problem, x0[:1])
        self.done += 1
        assert self.sensitivity is not None
        near = self.sensitivity.linearised(problem, x0)
        return jiio.solve(problem, near.x, near.z, metric=near.metric, **settings)


def classifier(recipe: Recipe, place: Place) -> Setting:
    """Attack: maximise the cross-entropy over the ball around an image, from the image itself."""
    family, pictures = images("mnist", "faces or not", recipe.size, place.root)
    assert pictures.train_labels is not None and pictures.test_labels is not None
    labels, classes = pictures.train_labels, int(pictures.train_labels.max()) + 1
    torch.manual_seed(derive(place.seed, recipe.trained.name))
    shape = (1, recipe.size, recipe.size)
    model = build(ModelConfig(recipe.cell, shape, "classifier", (classes,)), on_failure="ignore")

    def loss(chosen: Tensor) -> Tensor:
        x = pictures.train[chosen]
        found = model.solve(x, tolerance=LOOSE)
        penalty = jacobian_penalty(model.cell, detach(found.z), model.inject(x)).mean()
        return F.cross_entropy(model.head(found.z), labels[chosen]) + recipe.jacobian * penalty

    train(model, recipe, family, len(pictures.train), loss, place)
    x, y = pictures.test[: place.samples], pictures.test_labels[: place.samples]

    def make(index: Tensor) -> jiio.Problem:
        def objective(scores: Tensor, perturbed: Tensor) -> Tensor:
            return -F.cross_entropy(scores, y[index], reduction="none")

        return model.problem(objective, BALLS[recipe.norm](recipe.radius, center=x[index]))

    # Beside the figures: how good the network is, and how hard it contracts.
    with torch.no_grad():
        right = model(pictures.test[:1000]).argmax(1) == pictures.test_labels[:1000]
    return Setting(recipe, family, make, x, {"accuracy": float(right.float().mean()), **contraction(model, x)})


def train(
    model: EquilibriumModel,
    recipe: Recipe,
    family: str,
    count: int,
    loss: Callable[[Tensor], Tensor],
    place: Place,
) -> None:
    """Adam with a cosine schedule, or the weights of an earlier run of the same recipe.

    loss: sample numbers (N,) of the ``count`` training images -> scalar.
    """
    from safetensors.torch import load_file
    from safetensors.torch import save as to_bytes

    recipe, seed = recipe.trained, place.seed
    text = repr((dataclasses.asdict(recipe), repr(recipe.cell), family, count, seed))
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    path = place.cache / f"{recipe.name.replace(' ', '-')}-{seed}-{digest}.safetensors"

    # Draws are functions of (seed, step), so that the network is the same whatever was drawn before.
    def of_step(step: int) -> Tensor:
        torch.manual_seed(derive(seed, recipe.name, step))
        return loss(torch.randint(count, (recipe.batch,), generator=generator(seed, "batch", step)))

    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        done = descend(model.parameters(), of_step, Course(half_cosine(recipe.rate)), Steps(recipe.steps))
        say(f"{recipe.name}, seed {seed}: {done.steps} training steps, loss {done.loss:.4g}")
        write_whole(path, to_bytes({k: t.contiguous() for k, t in model.state_dict().items()}))
    model.eval().requires_grad_(False)


def contraction(model: EquilibriumModel, x: Tensor) -> dict[str, Any]:
    """How hard the trained cell contracts: the spectral radius of its Jacobian (median over samples)."""
    found = model.solve(x, adjoint=jiio.Detached(), on_failure="ignore")
    radius = spectral_radius(model.cell, found.z, model.inject(x), generator=generator(0, "radius"))
    return {
        "spectral radius": float(radius.median()),
        "state": sum(leaf[0].numel() for leaf in leaves(found.z)),
    }
