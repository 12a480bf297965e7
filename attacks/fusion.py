"""The latent ensemble layer: features of each source, mixed by a layer of few connections (LEL).

Kim and Ghosh, "On single source robustness in deep fusion models" (NeurIPS 2019), replace the mean over sources by a
1x1 convolution over the features of all of them, whose weights are kept few by their L1 norm: a feature that listens to
one source is untouched by noise in the others. On vectors a 1x1 convolution is a matrix. No batch norm, as everywhere
in this house: with batch statistics x would be a different problem for every batch it is solved in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, CellError, check_integer, fail
from jiio.models import LinearInjection


def check_sizes(argument: str, sizes: Any) -> tuple[int, ...]:
    """How many numbers each view has; raise where it is nothing of the kind."""
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or not sizes:
        fail(argument, "one whole number per view", sizes, error=ArgumentTypeError)
    return tuple(check_integer(argument, size, 1) for size in sizes)


def split(x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The views of x (B, ...), (B, size) each. Errors: CellError where x has another size."""
    flat = x.flatten(1)
    if flat.shape[1] != sum(sizes):
        fail("x", f"views of {' + '.join(map(str, sizes))} numbers per sample", x, error=CellError)
    return flat.split(sizes, dim=1)


class LatentEnsemble(nn.Module):
    """u = relu(M [relu(U_1 x_1 + b_1), ..., relu(U_n x_n + b_n)] + c). x: (B, ...), views in a row -> (B, features).

    sizes: numbers in each view. features: of each view, and in u. The L1 norm of M (:meth:`connections`) is what makes
    it sparse; ``SparseSources`` of the task ``classify`` adds it to a loss.
    """

    def __init__(self, sizes: Sequence[int], features: int) -> None:
        super().__init__()
        self.sizes = check_sizes("sizes", sizes)
        self.features = check_integer("features", features, 1)
        self.views = nn.ModuleList(LinearInjection(size, features) for size in self.sizes)
        self.mix = nn.Linear(len(self.sizes) * features, features)
        nn.init.normal_(self.mix.weight, std=(2.0 / self.mix.in_features) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        parts = split(x, self.sizes)
        latent = torch.cat([view(part) for view, part in zip(self.views, parts, strict=True)], dim=1)
        return torch.relu(self.mix(torch.relu(latent)))

    def connections(self) -> Tensor:
        """The L1 norm of M, a scalar with a gradient."""
        return self.mix.weight.abs().sum()

    @torch.no_grad()
    def shares(self) -> Tensor:
        """(features, views) which part of the weights of each feature goes to which source; rows sum to one."""
        sizes = self.mix.weight.abs().unflatten(1, (len(self.sizes), self.features)).sum(2)
        return sizes / sizes.sum(1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)

    @property
    def lipschitz(self) -> float:
        """A bound on |u - u'| / |x - x'|: the spectral norm of M times the largest of the U_v."""
        with torch.no_grad():
            outer = float(torch.linalg.matrix_norm(self.mix.weight, 2))
        return outer * max(view.lipschitz for view in self.views if isinstance(view, LinearInjection))
