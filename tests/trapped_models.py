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
    GradientInTrainModeOnly,
    Quantised,
    convolutional,
    equilibrium,
    hasty,
    monotone,
    slow_equilibrium,
)
from trapped_answers import (
    CLASSES,
    Around,
    Change,
    another_where_gradients_are,
    arg_max,
    at_the_label,
    batch_mean,
    batch_statistics,
    by_the_bytes,
    coin,
    decoy,
    detached,
    dropout_on,
    eight_bits,
    first_of_that_shape,
    gradients_left_off,
    half_of_the_pixels,
    hooked_gradient,
    hot,
    infinite,
    label_by_place,
    level,
    logarithm,
    nan_off_the_known,
    nearest_asked,
    no_grad_inside,
    noisy,
    overflow_in_half,
    quantised_gradient,
    random_off_the_known,
    reversed_gradient,
    root_of_nothing,
    rounded_input,
    running_mean,
    scores,
    seed_reset,
    seeded_noise,
    shattered,
    smooth_in_company,
    softmax,
    vanishing_gradient,
)

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


class Fickle(jiio.EquilibriumModel):
    """Stops early where a gradient is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.solve(x, max_steps=2 if torch.is_grad_enabled() else 100).z)


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
    "eight bits": (around(eight_bits), "zero-gradient"),
    "half of the pixels": (around(half_of_the_pixels), "partial-gradient"),
    "root of nothing": (around(root_of_nothing), "nan-gradient"),
    "quantised gradient": (around(quantised_gradient), "partial-gradient"),
    "hooked gradient": (around(hooked_gradient), "wrong-gradient"),
    "gradients left off": (around(gradients_left_off), "zero-gradient"),
    "overflow in half": (around(overflow_in_half), "nan-scores"),
    "level": (around(level), "ties"),
    "softmax": (around(softmax), "probabilities"),
    "another where gradients are": (around(another_where_gradients_are), "grad-mode"),
    "fickle": (lambda: like(equilibrium(), Fickle), "grad-mode"),
    "label by place": (around(label_by_place), "memory"),
    "by the bytes": (around(by_the_bytes), "wrong-gradient"),
    "seed reset": (around(seed_reset), "memory"),
    "random off the known": (around(random_off_the_known), "random"),
    "running mean": (around(running_mean), "random"),
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


def static_buffer() -> nn.Module:
    """Answers in the same memory each time where no gradient is wanted, as captured graphs do."""

    def answer(trap: Around, x: Tensor) -> Tensor:
        found = scores(trap, x)
        kept = trap.kept.setdefault("scores", torch.zeros(64, CLASSES))[: len(x)]
        return found if found.requires_grad else kept.copy_(found)

    return Around(answer).eval()


def writing() -> nn.Module:
    """Writes into the images that it is handed."""
    return Around(lambda trap, x: scores(trap, x.sub_(0.02))).eval()


HONEST: dict[str, Callable[[], nn.Module]] = {
    "plain": convolutional,
    "bfloat16 inside": Brain,
    "masked classes": smooth,
    "averaged weights": averaged,
    "static buffer": static_buffer,
    "writes into its images": writing,
    "log of probabilities": lambda: nn.Sequential(copy.deepcopy(convolutional()), nn.LogSoftmax(1)).eval(),
    "cold": lambda: Around(lambda trap, x: 1e-4 * scores(trap, x)).eval(),
    "clipped": lambda: Around(lambda trap, x: scores(trap, x.clamp(0.05, 0.95))).eval(),
    "data parallel": lambda: nn.DataParallel(equilibrium()),
    "ensemble": lambda: Ensemble(convolutional(), copy.deepcopy(convolutional())).eval(),
    "ensemble of equilibria": lambda: Ensemble(equilibrium(), like(equilibrium(), max_steps=60)).eval(),
    "dense equilibrium": equilibrium,
    "monotone equilibrium": monotone,
    "Broyden's method": lambda: like(equilibrium(), solver=jiio.Broyden()),
    "unrolled adjoint": lambda: like(equilibrium(), adjoint=jiio.Unrolled()),
    "normalised equilibrium": lambda: nn.Sequential(nn.BatchNorm2d(1), equilibrium()).eval(),
}
