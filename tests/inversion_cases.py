"""Generators with known weights for the tests of inversion."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from jiio.models import DenseConfig, ModelConfig
from jiio.models import build as build_model
from jiio.tasks.generate.generator import LatentGenerator

DOUBLE = torch.float64


def random_net(*widths: int, seed: int = 0, activation: nn.Module | None = None, last: nn.Module | None = None):
    """Gaussian layers with ReLU between them, in double precision."""
    draw, parts = torch.Generator().manual_seed(seed), []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after, dtype=DOUBLE)
        linear.weight.data = torch.randn(after, before, generator=draw, dtype=DOUBLE) * math.sqrt(2 / before)
        linear.bias.data = 0.1 * torch.randn(after, generator=draw, dtype=DOUBLE)
        parts += [linear, activation or nn.ReLU()]
    return nn.Sequential(*parts[:-1], *([last] if last else [])).eval()


def equilibrium() -> LatentGenerator:
    torch.manual_seed(0)
    plan = ModelConfig(DenseConfig(12, gain=0.5), (2,), "image", (1, 4, 4), "none")
    return LatentGenerator(build_model(plan), torch.full((1, 4, 4), 0.4), prior=1e-9).double().eval()


def codes(count: int, latent: int, seed: int = 1) -> Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def apart(found: Tensor, x: Tensor) -> Tensor:
    """(B,) relative error of codes."""
    return (found - x).norm(dim=1) / x.norm(dim=1)


def picture_of(generator: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        if isinstance(generator, LatentGenerator):
            return generator.decode(generator.decoder.solve(x).z)
        return generator(x)


FORWARD = random_net(3, 12, 36)
