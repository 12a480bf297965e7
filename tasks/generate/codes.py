"""Densities of latent codes: a Gaussian and a mixture of Gaussians, fitted to codes, drawn from, and evaluated.

What is not in an equilibrium decoder is where its codes lie. It is measured after the training, on the codes of
training images, as the JIIO authors do with a mixture of Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_integer, fail

SHRINK = 0.02  # share of the mean variance that is added to every direction: few codes leave some directions empty
ROUNDS = 300


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """weights: (K,). means: (K, n). covariances: (K, n, n)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def of_moments(cls, mean: Tensor, covariance: Tensor) -> GaussianMixture:
        """One Gaussian, its covariance shrunk a little towards a multiple of the identity."""
        return cls(mean.new_ones(1), mean[None], shrunk(covariance)[None])

    @classmethod
    def fit(cls, codes: Tensor, components: int, *, generator: torch.Generator) -> GaussianMixture:
        """Codes (N, n) by expectation maximisation (Dempster, Laird, Rubin 1977), begun at random codes.

        A component that loses its codes keeps its place with a weight near zero. Errors: ArgumentError where there are
        fewer than two codes per component.
        """
        check_integer("components", components, 1)
        if codes.dim() != 2 or len(codes) < 2 * components:
            fail("codes", f"at least {2 * components} codes (N, n) for {components} components", codes)
        centred = codes - codes.mean(0)
        whole = centred.T @ centred / len(codes)
        if components == 1:
            return cls.of_moments(codes.mean(0), whole)

        # Begun as equal parts around random codes, each as wide as all codes are.
        chosen = torch.randperm(len(codes), generator=generator)[:components]
        equal = codes.new_full((components,), 1 / components)
        mixture, before = cls(equal, codes[chosen], shrunk(whole).expand(components, -1, -1)), -math.inf
        for _ in range(ROUNDS):
            mixture, now = mixture.improved(codes, whole)
            if now - before < 1e-6 * abs(now):
                break
            before = now
        return mixture

    def improved(self, codes: Tensor, whole: Tensor) -> tuple[GaussianMixture, float]:
        """One round of expectation maximisation, and the mean log density before it. whole: (n, n), of all codes."""
        joint = self.components(codes)  # (N, K)
        total = joint.logsumexp(1)
        share = (joint - total[:, None]).exp()

        # Moments of the codes that each component answers for.
        count = share.sum(0).clamp_min(1e-6)
        means = share.T @ codes / count[:, None]
        apart = codes[:, None] - means  # (N, K, n)
        spread = torch.einsum("nk,nki,nkj->kij", share, apart, apart) / count[:, None, None]

        # A prior of as many codes as there are dimensions, spread as all codes are, keeps small components round.
        strength = codes.shape[1]
        prior = strength * whole / len(self.weights)
        spread = (count[:, None, None] * spread + prior) / (count[:, None, None] + strength)
        return GaussianMixture(count / count.sum(), means, shrunk(spread)), float(total.mean())

    def components(self, codes: Tensor) -> Tensor:
        """(N, K) log of weight times density."""
        lower = torch.linalg.cholesky(self.covariances)  # (K, n, n)
        apart = (codes[None] - self.means[:, None]).transpose(1, 2)  # (K, n, N)
        distance = torch.linalg.solve_triangular(lower, apart, upper=False).square().sum(1)  # (K, N)
        volume = lower.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * codes.shape[1] * math.log(2 * math.pi)
        return (self.weights.log()[:, None] - 0.5 * distance - volume[:, None]).T

    def log_density(self, codes: Tensor) -> Tensor:
        """(N,)"""
        return self.components(codes).logsumexp(1)

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        """(count, n)"""
        kinds = torch.multinomial(self.weights.cpu().float(), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator).to(self.means)
        lower = torch.linalg.cholesky(self.covariances)[kinds.to(self.means.device)]
        return self.means[kinds] + (lower @ noise[:, :, None])[:, :, 0]


def shrunk(covariance: Tensor) -> Tensor:
    """Covariances (..., n, n) with a little more in every direction."""
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return covariance + (SHRINK * size + 1e-8) * torch.eye(covariance.shape[-1]).to(covariance)
