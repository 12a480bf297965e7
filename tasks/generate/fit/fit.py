"""Fitting codes to given images, in a way that knows when it failed; and how unlike training images they are.

Each image is fitted from several starts; per image the start, its objective, residuals and status are told. Two scores
say how unlike the training images it is, larger for stranger ones:

    objective   |decode(x*) - image|^2 + prior |x*|^2
    surprise    - log p(image) by Laplace's approximation around x*, with Gaussian noise of the training error and the
                Gaussian of the training codes:  |e|^2 / 2 s^2 + D/2 log(2 pi s^2) - log q(x*) - n/2 log(2 pi)
                + 1/2 log det(C^-1 + J^T J / s^2),   J = d decode / d x

Both are reported because likelihoods mislead (Nalisnick et al. 2019): a smooth image of another kind can be likelier
than those of the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_integer
from jiio.outputs.seeds import generator
from jiio.tasks.images.metrics import psnr

from ..generator import EXACT, LatentGenerator

SETTINGS: dict[str, Any] = {
    "solver": jiio.Anderson(memory=12),
    "tolerance": jiio.Tolerance(1e-5, 1e-3),
    "max_steps": 200,
    "adjoint": jiio.Detached(),
}
STEP = 1e-2  # of a code, for the finite differences of J


@dataclass(frozen=True, eq=False)
class Fit:
    """The best fit of each image.

    image: (B, C, H, W), not clipped. x: (B, latent). objective, error, prior: (B,), the first is the sum of the others.
    residual: (B,), the largest over the blocks. converged: (B,). start: (B,), which start it came from, 0 is the zero
    code. starts: (S, B), the objective from every start. evaluations, vjps: of all starts. solution: of the
    first start.
    """

    image: Tensor
    x: Tensor
    objective: Tensor
    error: Tensor
    prior: Tensor
    residual: Tensor
    converged: Tensor
    start: Tensor
    starts: Tensor
    evaluations: int
    vjps: int
    solution: jiio.Solution

    def psnr(self, images: Tensor) -> Tensor:
        """(B,) dB, of the clipped fit."""
        return psnr(self.image.clamp(0, 1), images)


@torch.no_grad()
def fit_images(model: LatentGenerator, images: Tensor, *, restarts: int = 0, seed: int = 0, **settings: Any) -> Fit:
    """Fit codes to images (B, C, H, W) in [0, 1].

    restarts: further starts, drawn from the codes of training images; the fit with the smallest objective is kept, of
    those that converged where any did. settings: of :func:`jiio.solve`.
    """
    check_integer("restarts", restarts, 0)
    problem, batch = model.problem(images, EXACT), len(images)
    settings = SETTINGS | {"on_failure": "ignore"} | settings
    source = generator(seed, "restarts")
    solutions = []

    # The first start is the zero code, the others are drawn like codes of training images.
    for start in range(restarts + 1):
        x0 = model.start(images) if start == 0 else model.codes.draw(batch, generator=source)
        begin = model.beginning.begin(problem, x0, model.observation(images, EXACT))
        solution = begin.solve(problem, **settings)
        solution.evaluations.cell += begin.calls
        solutions.append(solution)
    return best_of(model, solutions)


def best_of(model: LatentGenerator, solutions: list[jiio.Solution]) -> Fit:
    """For each image the solution with the smallest objective, of those that converged where any did."""
    starts = torch.stack([s.value for s in solutions])  # (S, B)
    converged = torch.stack([s.converged for s in solutions])
    # A point that is not an equilibrium has no image: its objective does not count where another start arrived.
    counts = torch.isfinite(starts) & (converged | ~converged.any(0))
    best = torch.where(counts, starts, torch.full_like(starts, math.inf)).argmin(0)  # (B,)
    rows = torch.arange(starts.shape[1], device=starts.device)

    # What belongs to the start that won.
    x = torch.stack([s.x for s in solutions])[best, rows]
    image = torch.stack([model.decode(s.z) for s in solutions])[best, rows]
    residual = torch.stack([s.residual.nan_to_num(math.inf).amax(1) for s in solutions])[best, rows]
    prior, objective = model.prior * x.square().sum(1), starts[best, rows]
    calls = (sum(s.evaluations.cell for s in solutions), sum(s.evaluations.vjp for s in solutions))
    parts = (image, x, objective, objective - prior, prior, residual, converged[best, rows], best, starts)
    return Fit(*parts, *calls, solutions[0])


@torch.no_grad()
def surprise(model: LatentGenerator, fit: Fit, *, chunk: int = 4096) -> Tensor:
    """(B,) the Laplace approximation of - log p(image) at a fit, in nats; see the head of this file."""
    codes, variance = model.codes, float(model.errors[2].clamp_min(1e-8))
    latent = fit.x.shape[1]
    pixels = fit.image[0].numel()
    # Tight, because a difference of two equilibria is divided by a small step.
    tight = {"tolerance": jiio.Tolerance(1e-6, 1e-5), "max_steps": 200, "on_failure": "ignore"}
    moves = STEP * torch.eye(latent).to(fit.x)
    rows = []

    for part in fit.x.split(max(1, chunk // (2 * latent))):
        both = torch.cat([part[:, None] + moves, part[:, None] - moves], 1).flatten(0, 1)
        images = model.decode(model.decoder.solve(both, adjoint=jiio.Detached(), **tight).z).flatten(1)
        plus, minus = images.unflatten(0, (len(part), 2 * latent)).chunk(2, dim=1)
        slope = ((plus - minus) / (2 * STEP)).double()  # (b, latent, pixels)
        rows.append(slope @ slope.transpose(1, 2))

    gram = torch.cat(rows)  # (B, latent, latent), J J^T of each fit
    precision = torch.linalg.inv(codes.covariances[0].double())
    volume = torch.linalg.cholesky(precision + gram / variance).diagonal(dim1=1, dim2=2).log().sum(1)
    noise = fit.error.double() / (2 * variance) + 0.5 * pixels * math.log(2 * math.pi * variance)
    prior = codes.log_density(fit.x).double() + 0.5 * latent * math.log(2 * math.pi)
    return noise - prior + volume
