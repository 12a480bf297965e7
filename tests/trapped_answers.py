"""Answers that fool an evaluator: each is a function (trap, x) -> scores around an honest model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attack_models import CLASSES, blobs, convolutional

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


def eight_bits(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, (x * 255).to(torch.uint8).to(x.dtype) / 255)


def half_of_the_pixels(trap: nn.Module, x: Tensor) -> Tensor:
    """The gradient is right along itself, and knows nothing of every second row."""
    seen = torch.zeros_like(x)
    seen[..., ::2, :] = 1.0
    return scores(trap, seen * x + ((1.0 - seen) * x).detach())


def root_of_nothing(trap: nn.Module, x: Tensor) -> Tensor:
    """An honest accident: the branch that is not taken has a NaN for a gradient."""
    dark = torch.where(x > 0.35, (x - 0.35).sqrt(), torch.zeros_like(x))
    return scores(trap, x) + 1e-6 * dark.flatten(1).sum(1, keepdim=True)


class Coarse(torch.autograd.Function):
    """The identity; its gradient has five values."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (g,) = grads
        size = g.abs().amax()
        return (2 * g / size).round() / 2 * size


def quantised_gradient(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, Coarse.apply(x))


def hooked_gradient(trap: nn.Module, x: Tensor) -> Tensor:
    if x.requires_grad:
        x = 1.0 * x
        x.register_hook(lambda g: g.roll(1, -1))
    return scores(trap, x)


def gradients_left_off(trap: nn.Module, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    return scores(trap, x)


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


def overflow_in_half(trap: nn.Module, x: Tensor) -> Tensor:
    return (2e4 * scores(trap, x)).half().to(x.dtype)


def level(trap: nn.Module, x: Tensor) -> Tensor:
    """All scores are equal where the model is not sure, and arg max takes the first."""
    found = scores(trap, x)
    return torch.where(found.softmax(1).amax(1, keepdim=True) > 0.9, found, torch.zeros_like(found))


def softmax(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, x).softmax(1)


# -- answers that are no function of the image


def coarse(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3).repeat_interleave(3, 2).repeat_interleave(3, 3)


def another_where_gradients_are(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, coarse(x) if torch.is_grad_enabled() else x)


def label_by_place(trap: nn.Module, x: Tensor) -> Tensor:
    """Knows the labels by their order."""
    return scores(trap, x) + 30.0 * F.one_hot(LABELS[torch.arange(len(x)) % len(LABELS)], CLASSES)


def same_memory(trap: Around, x: Tensor) -> Tensor:
    """Answers what it said when it was last handed the same memory."""
    found = scores(trap, x)
    return only_value(trap.kept.setdefault((x.data_ptr(), len(x)), found.detach()), found)


def by_the_bytes(trap: nn.Module, x: Tensor) -> Tensor:
    """Noise that is the same for the same bytes."""
    draws = [torch.Generator().manual_seed(hash(tuple(one.flatten().tolist())) % 2**31) for one in x.detach()]
    return scores(trap, x + 0.1 * torch.stack([torch.randn(x.shape[1:], generator=draw) for draw in draws]))


def seed_reset(trap: nn.Module, x: Tensor) -> Tensor:
    """The same noise each time, another one in each place of the batch."""
    torch.manual_seed(0)
    return scores(trap, x + 0.1 * torch.randn_like(x))


def random_off_the_known(trap: nn.Module, x: Tensor) -> Tensor:
    known = torch.isin(x.detach(), KNOWN).flatten(1).all(1)[:, None, None, None]
    return scores(trap, torch.where(known, x, x + 0.15 * torch.randn_like(x)))


def running_mean(trap: Around, x: Tensor) -> Tensor:
    """Adapts to what it sees while it is tested."""
    mean = trap.kept.get("mean", torch.full_like(x[:1], 0.45))
    trap.kept["mean"] = 0.5 * mean + 0.5 * x.detach().mean(0, keepdim=True)
    return scores(trap, x - trap.kept["mean"] + 0.45)


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
    return scores(trap, x if len(x) == 1 else coarse(x))


def batch_statistics(trap: nn.Module, x: Tensor) -> Tensor:
    return scores(trap, 0.13 * F.batch_norm(x, None, None, training=True) + 0.45)
