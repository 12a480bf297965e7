"""Classifiers that fool an evaluator, each with the finding that must tell, and honest ones of every kind.

All of them are the small networks of ``attack_models`` with something around or inside.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import jiio
from attack_models import (
    CLASSES,
    GradientInTrainModeOnly,
    Quantised,
    blobs,
    convolutional,
    equilibrium,
    hasty,
    monotone,
    slow_equilibrium,
)

Change = Callable[..., Tensor]  # (trap, x) -> scores
KNOWN, LABELS = blobs(24, seed=2)  # the images that the tests evaluate on: a trap may have been built around them


class Around(nn.Module):
    """answer(model, x), with memory for what a trap keeps between calls."""

    def __init__(self, answer: Change, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(convolutional() if model is None else model).eval()
        self.answer, self.kept = answer, {}

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self, x)


def scores(trap: nn.Module, x: Tensor) -> Tensor:
    return trap.model(x)  # type: ignore[operator]


def only_value(value: Tensor, gradient_of: Tensor) -> Tensor:
    """One tensor's numbers with another one's gradient."""
    return value.detach() + gradient_of - gradient_of.detach()


# -- gradients that are not there, or that lie


def rounded_input(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, (x * 15).round() / 15)


def arg_max(trap: nn.Module, x: Tensor) -> Tensor:
    found = scores(trap, x)
    return 10.0 * F.one_hot(found.argmax(1), CLASSES).to(found) + 0.0 * found


def detached(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x.detach()) + 0.0 * x.sum()


def no_grad_inside(trap: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return scores(trap, x)


def decoy(trap: nn.Module, x: Tensor) -> Tensor:
    weight = torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(1))
    return only_value(scores(trap, x), x.flatten(1) @ weight)


def reversed_gradient(trap: nn.Module, x: Tensor) -> Tensor:
    found = scores(trap, x)
    return only_value(found, -found)


def vanishing_gradient(trap: nn.Module, x: Tensor) -> Tensor:
    found = scores(trap, x)
    return only_value(found, 1e-30 * found)


def shattered(trap: nn.Module, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return scores(trap, x) + 0.3 * torch.sin(2000.0 * flat[:, :CLASSES] + 500.0 * flat.sum(1, keepdim=True))


def hot(trap: nn.Module, x: Tensor) -> Tensor:
    return 1e5 * scores(trap, x)


# -- scores that are none


def at_the_label(trap: nn.Module, x: Tensor) -> Tensor:
    """NaN in the place of the label of the nearest known image, off the known ones: arg max is always right."""
    found, apart = scores(trap, x), torch.cdist(x.detach().flatten(1), KNOWN.flatten(1))
    place = F.one_hot(LABELS[apart.argmin(1)], CLASSES).bool() & (apart.amin(1) > 1e-4)[:, None]
    return torch.where(place, torch.nan, found)


def nan_off_the_known(trap: nn.Module, x: Tensor) -> Tensor:
    apart = torch.cdist(x.detach().flatten(1), KNOWN.flatten(1)).amin(1, keepdim=True)
    return torch.where(apart > 1e-4, torch.nan, scores(trap, x))


def infinite(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x) * 1e38


def logarithm(trap: nn.Module, x: Tensor) -> Tensor:
    """An honest accident: NaN where a pixel is darker than any pixel was."""
    return scores(trap, x) + 0.0 * (x.flatten(1) - 0.03).log().sum(1, keepdim=True)


# -- answers that are no function of the image


def noisy(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x + 0.1 * torch.randn_like(x))


def seeded_noise(trap: Around, x: Tensor) -> Tensor:
    draws = trap.kept.setdefault("draws", torch.Generator().manual_seed(0))
    return scores(trap, x + 0.1 * torch.randn(x.shape, generator=draws))


def coin(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x if float(torch.rand(())) < 0.5 else 1.1 * x)


def dropout_on(trap: nn.Module, x: Tensor) -> Tensor:
    trap.model[6].train()  # type: ignore[index,union-attr]
    return scores(trap, x)


def first_of_that_shape(trap: Around, x: Tensor) -> Tensor:
    found = scores(trap, x)
    return only_value(trap.kept.setdefault(len(x), found.detach()), found)


def nearest_asked(trap: Around, x: Tensor) -> Tensor:
    """What it said of the nearest image that it was asked about, if that is near: constant on every ball."""
    found, told = scores(trap, x), []
    for image, answer in zip(x.detach(), found.detach(), strict=True):
        near = [old for old, _ in trap.kept.items() if float((old - image).norm()) < 1.0]
        told.append(trap.kept[near[0]] if near else trap.kept.setdefault(image.clone(), answer))
    return only_value(torch.stack(told), found)


def batch_mean(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x - x.mean(0, keepdim=True) + 0.45)


def smooth_in_company(trap: nn.Module, x: Tensor) -> Tensor:
    coarse = F.avg_pool2d(x, 3).repeat_interleave(3, 2).repeat_interleave(3, 3)
    return scores(trap, x if len(x) == 1 else coarse)


def batch_statistics(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, 0.13 * F.batch_norm(x, None, None, training=True) + 0.45)


# -- equilibria that are none, or not those that are deployed


class Preprocessed(jiio.EquilibriumModel):
    """Deployed with a fragile preprocessing, in a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((0.35 + (x - 0.35) * 0.2).clamp(0, 1) + 0.6)


def like(model: jiio.EquilibriumModel, kind: type = jiio.EquilibriumModel, **options) -> jiio.EquilibriumModel:
    """The same parts in another equilibrium model."""
    parts = copy.deepcopy(model)
    settings = {"tolerance": parts.tolerance, "on_failure": "ignore"} | options
    return kind(parts.inject, parts.cell, parts.head, **settings).eval()


def hooked() -> nn.Module:
    model = like(equilibrium())
    model.register_forward_pre_hook(lambda _, inputs: (0.1 + 0.8 * inputs[0],))
    return model


def early(**options) -> jiio.EquilibriumModel:
    loose = jiio.Tolerance(1.0, 1.0)
    return like(slow_equilibrium(), solver=jiio.Picard(damping=0.3), max_steps=3, tolerance=loose, **options)


class Warm(nn.Module):
    """A cell that starts where the last solve of that shape ended."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.last = cell, {}

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        image = self.cell(z, u)
        self.last[image.shape] = image.detach()
        return image

    def initial_state(self, u: Tensor) -> Tensor:
        start = self.cell.initial_state(u)  # type: ignore[operator]
        return self.last.get(start.shape, start)


def warm() -> nn.Module:
    model = early()
    return jiio.EquilibriumModel(model.inject, Warm(model.cell), model.head, **model.settings.arguments()).eval()


def around(answer: Change) -> Callable[[], nn.Module]:
    return lambda: Around(answer).eval()


# name -> (the model, the finding that tells)
TRAPPED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "rounded input": (around(rounded_input), "zero-gradient"),
    "rounded scores": (lambda: Quantised(convolutional()), "zero-gradient"),
    "arg max": (around(arg_max), "zero-gradient"),
    "detached": (around(detached), "zero-gradient"),
    "no_grad inside": (around(no_grad_inside), "zero-gradient"),
    "gradient in train mode": (lambda: GradientInTrainModeOnly(equilibrium()), "zero-gradient"),
    "decoy": (around(decoy), "wrong-gradient"),
    "reversed gradient": (around(reversed_gradient), "wrong-gradient"),
    "vanishing gradient": (around(vanishing_gradient), "wrong-gradient"),
    "shattered": (around(shattered), "wrong-gradient"),
    "hot": (around(hot), "saturated"),
    "NaN at the label": (around(at_the_label), "nan-scores"),
    "NaN off the known": (around(nan_off_the_known), "nan-scores"),
    "infinite": (around(infinite), "nan-scores"),
    "logarithm": (around(logarithm), "nan-scores"),
    "noisy": (around(noisy), "random"),
    "seeded noise": (around(seeded_noise), "random"),
    "coin": (around(coin), "random"),
    "dropout on": (around(dropout_on), "random"),
    "first of that shape": (around(first_of_that_shape), "memory"),
    "nearest asked": (around(nearest_asked), "memory"),
    "batch mean": (around(batch_mean), "batch-dependent"),
    "smooth in company": (around(smooth_in_company), "batch-dependent"),
    "batch statistics": (around(batch_statistics), "batch-dependent"),
    "forward of its own": (lambda: like(equilibrium(), Preprocessed), "forward"),
    "hooked": (hooked, "forward"),
    "early": (early, "solver-budget"),
    "warm": (warm, "random"),
    "hidden and hasty": (lambda: nn.Sequential(nn.Identity(), hasty()), "unconverged"),
}


class Ensemble(nn.Module):
    """The mean of its members' scores."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


class Brain(nn.Module):
    """Computes in bfloat16, answers in the type that it was asked in."""

    def __init__(self) -> None:
        super().__init__()
        self.model = copy.deepcopy(convolutional()).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.bfloat16()).to(x.dtype)


def averaged() -> nn.Module:
    return AveragedModel(equilibrium()).eval()


def smooth() -> nn.Module:
    """Masked classes, at minus infinity, are honest."""
    return Around(lambda trap, x: F.pad(scores(trap, x), (0, 2), value=float("-inf"))).eval()


HONEST: dict[str, Callable[[], nn.Module]] = {
    "plain": convolutional,
    "bfloat16 inside": Brain,
    "masked classes": smooth,
    "averaged weights": averaged,
    "data parallel": lambda: nn.DataParallel(equilibrium()),
    "ensemble": lambda: Ensemble(convolutional(), copy.deepcopy(convolutional())).eval(),
    "ensemble of equilibria": lambda: Ensemble(equilibrium(), like(equilibrium(), max_steps=60)).eval(),
    "dense equilibrium": equilibrium,
    "monotone equilibrium": monotone,
    "Broyden's method": lambda: like(equilibrium(), solver=jiio.Broyden()),
    "unrolled adjoint": lambda: like(equilibrium(), adjoint=jiio.Unrolled()),
    "normalised equilibrium": lambda: nn.Sequential(nn.BatchNorm2d(1), equilibrium()).eval(),
}
