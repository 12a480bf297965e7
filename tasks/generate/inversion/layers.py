"""A feed-forward generator as what it is made of: affine maps, each with an activation that can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, fail
from jiio.outputs.seeds import generator as source_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
# In eval mode batch norm is affine and dropout does nothing.
AFFINE = (nn.Linear, *CONVOLUTIONS, nn.BatchNorm1d, nn.BatchNorm2d, nn.Upsample, nn.AvgPool2d)
AFFINE += (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d)
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh)
EDGE = 1e-4  # outputs of sigmoid and tanh count as at least so far inside their range
ROUNDS = 30


class Visible(nn.Module):
    """Of an image (B, ...) the numbers that were seen, (B, count): put behind a generator, it makes what is there of an
    image with holes.

    mask: of the shape of an image, True where it was seen.

    Errors: ArgumentError / ArgumentTypeError for what is no such mask, or leaves nothing.
    """

    place: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            fail("mask", "a tensor of truth values", mask, error=ArgumentTypeError)
        if not bool(mask.any()):
            fail("mask", "a number that was seen", "none")
        self.shape = tuple(mask.shape)
        self.register_buffer("place", mask.flatten().nonzero()[:, 0], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[1:]) != self.shape:
            fail("mask", f"the shape of an image, {tuple(image.shape[1:])}", f"{self.shape}")
        return image.flatten(1)[:, self.place]


@dataclass(frozen=True, eq=False)
class Layer:
    """Affine modules and the activation after them. shape: of one input. work: multiplications for one input."""

    affine: nn.Sequential
    activation: nn.Module
    shape: tuple[int, ...]
    work: int

    def __call__(self, v: Tensor) -> Tensor:
        return self.activation(self.affine(v))


def layers_of(generator: nn.Module, latent: int) -> list[Layer]:
    """The layers of a feed-forward generator in eval mode, which takes codes (B, latent).

    Errors: ArgumentError where it is not a sequence of affine modules and activations that are known here.
    """
    if not isinstance(generator, nn.Sequential):
        remedy = "AdamDescent inverts any generator, JointFit equilibria."
        fail("generator", "nn.Sequential, to be inverted layer by layer", type(generator).__name__, remedy)
    found, v = [], next(generator.parameters()).new_zeros(1, latent)
    for modules, activation in grouped(generator):
        if not modules and isinstance(activation, nn.Identity):
            continue

        # The shapes are those that a code of zeros takes on its way through.
        shape, work = tuple(v.shape[1:]), 1
        for module in modules:
            before, v = v, module(v)
            work += multiplications(module, before, v)
        v = activation(v)
        found.append(Layer(nn.Sequential(*modules), activation, shape, work))
    return found


def grouped(generator: nn.Sequential) -> list[tuple[list[nn.Module], nn.Module]]:
    """The modules in groups: affine ones, and the activation after them (nn.Identity after the last)."""
    groups: list[tuple[list[nn.Module], nn.Module]] = [([], nn.Identity())]
    for part in parts_of(generator):
        # What is left out of an image does not care whether it went through the last activation first.
        if isinstance(part, Visible) and not groups[-1][0] and len(groups) > 1:
            groups[-2][0].append(part)
            continue
        steep = not isinstance(part, nn.LeakyReLU) or part.negative_slope > 0  # or it could not be undone
        if isinstance(part, (*AFFINE, Visible)) and not (isinstance(part, nn.Upsample) and part.mode == "bicubic"):
            groups[-1][0].append(part)
        elif isinstance(part, ACTIVATIONS) and steep:
            groups[-1] = groups[-1][0], part
            groups.append(([], nn.Identity()))
        else:
            known = "affine layers with ReLU, LeakyReLU (rising), Sigmoid or Tanh between them"
            fail("generator", known, f"{part}", "AdamDescent inverts any generator.")
    return groups


def parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of nested nn.Sequential, in order."""
    for part in module.children() if isinstance(module, nn.Sequential) else ():
        yield from parts_of(part)
    if not isinstance(module, nn.Sequential):
        yield module


def multiplications(module: nn.Module, before: Tensor, after: Tensor) -> int:
    """By the weights of one module, for one input."""
    if isinstance(module, nn.Linear):
        return module.weight.numel() * (before.numel() // before.shape[-1])
    if isinstance(module, CONVOLUTIONS):  # every weight meets every place of the smaller of the two
        places = before if module.transposed else after
        return module.weight.numel() * (places.numel() // places.shape[1])
    return 0


def undone(activation: nn.Module, t: Tensor, support: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of outputs t (B, ...): what the activation was given, its slope there, and where the former is known exactly.

    Elsewhere it was at most what is said; that is a ReLU's outputs up to ``support`` times their RMS.
    """
    one, everywhere = torch.ones_like(t), torch.ones_like(t, dtype=torch.bool)
    if isinstance(activation, nn.ReLU):
        return t.clamp_min(0.0), one, t > support * wide(t.flatten(1).square().mean(1).sqrt(), t)
    if isinstance(activation, nn.LeakyReLU):
        slope = torch.where(t < 0, activation.negative_slope, one)
        return t / slope, slope, everywhere
    if isinstance(activation, nn.Sigmoid):
        t = t.clamp(EDGE, 1 - EDGE)
        return t.logit(), t * (1 - t), everywhere
    if isinstance(activation, nn.Tanh):
        t = t.clamp(EDGE - 1, 1 - EDGE)
        return t.atanh(), 1 - t.square(), everywhere
    return t, one, everywhere


def spectrum(layer: Layer, like: Tensor) -> tuple[Tensor, int]:
    """|s A|^2 of a layer for slopes s up to one, from above, and the passes that this took.

    By the power method from a fixed random input, and 10 % on top of its estimate.
    """
    v = torch.randn(1, *layer.shape, generator=source_of(0, "norm"), dtype=torch.float64).to(like)
    origin = layer.affine(torch.zeros_like(v))
    for _ in range(ROUNDS):
        with torch.enable_grad():
            v = (v / v.norm().clamp_min(1e-30)).detach().requires_grad_()
            v = torch.autograd.grad(0.5 * (layer.affine(v) - origin).square().sum(), v)[0]
    steepest = getattr(layer.activation, "negative_slope", 1.0)
    return 1.1 * v.norm().clamp_min(1e-30) * max(1.0, steepest) ** 2, ROUNDS + 1


def wide(of_samples: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to go with ``like`` (B, ...)."""
    return of_samples.view(-1, *[1] * (like.dim() - 1))
