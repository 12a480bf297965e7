"""The five small networks that two evaluators judge: two convolutional, one of them trained against an adversary, a
residual one, and an equilibrium, with the radii at which each is attacked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as packed
from torch import Tensor, nn

from benchmarks.attacks.digits import digits
from benchmarks.tables import say
from benchmarks.trainings import Course, Steps, classifier, descend, half_cosine
from jiio.attacks import PGD, ThreatModel
from jiio.outputs.atomic import write_whole
from jiio.outputs.seeds import derive
from jiio.tasks.classify.data import ClassifyDataConfig, Labelled, labelled_batch, load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.frame.choices import Choice

MNIST = ClassifyDataConfig("mnist", 28, batch_size=128, train_limit=20_000)
SMALL = ClassifyDataConfig("mnist", 14, batch_size=100, train_limit=20_000)  # as digits() has it
CIFAR = ClassifyDataConfig("cifar10", 32, channels=3, batch_size=128, mirror=True)


def convolutional(channels: int, features: int) -> nn.Module:
    """Two strided convolutions and two dense layers, for grey images of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * 49, features),
        nn.ReLU(),
        nn.Linear(features, 10),
    )


def normed(channels: int) -> nn.Module:
    """Three strided convolutions with batch normalisation, for colour images of 32 x 32."""
    widths = (3, channels, 2 * channels, 2 * channels)
    layers = [_conv(a, b, stride=2) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * channels * 16, 10))


def residual(channels: int) -> nn.Module:
    """A strided stem, two residual blocks and a mean over the image, for colour images of 32 x 32."""
    return nn.Sequential(
        _conv(3, channels, stride=2),
        Block(channels, channels, stride=1),
        Block(channels, 2 * channels, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, 10),
    )


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    same = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(same, nn.BatchNorm2d(after), nn.ReLU())


class Block(nn.Module):
    """x -> relu(shortcut(x) + two convolutions of x), as in He et al. (2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.body = nn.Sequential(_conv(before, after, stride), second, nn.BatchNorm2d(after))
        plain = before == after and stride == 1
        self.shortcut = nn.Identity() if plain else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


@dataclass(frozen=True)
class Judged:
    """data: what it is trained on. make: the untrained network; None, the equilibrium, which is jiio's own task.
    steps: of its training. adversary: radius in Linf of the PGD that it is trained against, 0 for none. radii: by norm.
    """

    data: ClassifyDataConfig
    make: Callable[[], nn.Module] | None
    steps: int
    radii: dict[str, float]
    adversary: float = 0.0


ON_DIGITS, ON_PICTURES = {"linf": 0.1, "l2": 1.5}, {"linf": 2 / 255, "l2": 0.25}
NETWORKS: dict[str, Judged] = {
    "CNN, MNIST": Judged(MNIST, lambda: convolutional(8, 32), 500, ON_DIGITS),
    "CNN, CIFAR-10": Judged(CIFAR, lambda: normed(12), 300, ON_PICTURES),
    "adversarially trained CNN, MNIST": Judged(MNIST, lambda: convolutional(8, 32), 250, {"linf": 0.2, "l2": 2.0}, 0.2),
    "ResNet, CIFAR-10": Judged(CIFAR, lambda: residual(8), 300, ON_PICTURES),
    "equilibrium, MNIST": Judged(SMALL, None, 200, {"linf": 0.05, "l2": 0.5}),
}


def trained(name: str, seed: int, cache: Path, data_root: Path | None, fast: bool) -> tuple[nn.Module, Labelled]:
    """The network, held, and its data; read where ``cache`` has it."""
    one, data = NETWORKS[name], load_labelled(NETWORKS[name].data, data_root=data_root)
    steps = 40 if fast else one.steps
    file = f"judged-{list(NETWORKS).index(name)}-{seed}-{steps}"
    if one.make is None:
        cell = NetworkConfig(Choice("Dense", {"features": 64, "gain": 0.8}))
        return classifier(digits(cache / file, cell, seed=seed, steps=steps, test=100), data_root), data

    torch.manual_seed(derive(seed, "model"))
    model, path = one.make(), cache / f"{file}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        _train(model, one, data, seed, steps)
        write_whole(path, packed(model.state_dict()))
    return model.eval().requires_grad_(False), data


def _train(model: nn.Module, one: Judged, data: Labelled, seed: int, steps: int) -> None:
    """Adam on the cross-entropy, of attacked images where there is an adversary."""
    attack = PGD(steps=5, best=False)
    model.train()

    def loss(step: int) -> Tensor:
        x, y = labelled_batch(data, one.data, seed=seed, step=step)
        if one.adversary:
            draws = torch.Generator().manual_seed(derive(seed, "adversary", step))
            x = attack(model, x, y, ThreatModel("linf", one.adversary), generator=draws).x
        return F.cross_entropy(model(x), y)

    done = descend(model.parameters(), loss, Course(half_cosine(3e-3, rise=25)), Steps(steps))
    say(f"trained: {done.steps} steps, loss {done.loss:.3f}, {done.seconds:.0f} s")
