"""Denoising and inpainting by joint optimisation over the latent code of an equilibrium decoder.

The paper's inverse problems (Gurumurthy et al. 2021): for a measurement y = A(image) + noise, minimise over the code x

    |A(decode(x)) - y|^2 + prior |x|^2,    decode(x) = head(z*) + mean image,  z* = cell(z*, x),

with state, multiplier and code solved together. The decoder is trained *through* that solve: the outer loss is the
error of the restored image against the clean one, everywhere, also where nothing was measured.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

import jiio
from jiio.diagnostics import jacobian_penalty
from jiio.layout import Tree, detach
from jiio.models import EquilibriumModel, build
from tasks.baselines import Case, best, serving
from tasks.config import TrainConfig
from tasks.corruption import Inpaint, LinearMap
from tasks.data import load_images, training_batch
from tasks.metrics import psnr, ssim
from tasks.seeds import generator
from tasks.starts import AbstractStart, Plain

Row = dict[str, str | float]


class LatentRestorer(nn.Module):
    """An equilibrium decoder around a mean image.

    decoder: x (B, latent) -> (B, C, H, W). mean: (C, H, W), of the training images. prior: weight of |x|^2.
    """

    mean: Tensor

    def __init__(self, decoder: EquilibriumModel, mean: Tensor, *, prior: float) -> None:
        super().__init__()
        self.decoder, self.prior = decoder, prior
        self.register_buffer("mean", mean)

    def decode(self, z: Tree) -> Tensor:
        """The image (B, C, H, W) of a state."""
        return self.decoder.head(z) + self.mean

    def problem(self, y: Tensor, operator: LinearMap) -> jiio.Problem:
        """The joint problem for measurements y (B, ...)."""

        def objective(prediction: Tensor, x: Tensor) -> Tensor:
            error = operator.A(prediction + self.mean) - y
            return error.square().flatten(1).sum(1) + self.prior * x.square().sum(1)

        return self.decoder.problem(objective)

    def start(self, y: Tensor) -> Tensor:
        """The code to start from: zero, the mean of the prior."""
        config = self.decoder.config
        return self.mean.new_zeros(y.shape[0], config.input[0])

    def observation(self, y: Tensor, operator: LinearMap) -> Tensor:
        """(B, 2 pixels) what an amortised start sees: how far the measurement is off the mean, and where it is."""
        mean = self.mean.expand(len(y), *self.mean.shape)
        where = operator.A_adjoint(operator.A(torch.ones_like(mean)))
        return torch.cat([(operator.A_adjoint(y - operator.A(mean))).flatten(1), where.flatten(1)], 1)

    def restore(
        self,
        y: Tensor,
        operator: LinearMap,
        *,
        start: AbstractStart = Plain(),  # noqa: B008 (holds nothing)
        **settings,
    ) -> tuple[Tensor, jiio.Solution]:
        """The restored images (B, C, H, W) and the solution, from a start; ``settings`` as in :func:`jiio.solve`."""
        problem = self.problem(y, operator)
        begin = start.begin(problem, self.start(y), self.observation(y, operator))
        solution = begin.solve(problem, **settings)
        return self.decode(solution.z), solution


class Restore:
    """The task ``restore`` of a training configuration."""

    def __init__(self, config: TrainConfig, *, data_root: Path | None = None) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.corruption = config.corruption.make("corruption", "corruption")
        self.settings = config.joint.arguments()
        self.images = load_images(config.data, data_root=data_root)
        self.draw(1, "check", 0)  # a hole larger than the image ends here, before anything is written

    def draw(self, batch: int, purpose: str, step: int) -> LinearMap:
        """The corruption of one batch, a pure function of (seed, purpose, step)."""
        size = self.config.data.size
        source = generator(self.config.seed, "corruption", purpose, step)
        return self.corruption.draw(batch, size, size, generator=source)

    def model(self) -> LatentRestorer:
        decoder = build(self.config.model.plan(self.config.data))
        shape = (self.config.data.channels, self.config.data.size, self.config.data.size)
        mean = self.images.train.mean(0) if len(self.images.train) else torch.full(shape, 0.5)
        return LatentRestorer(decoder, mean, prior=self.config.model.prior)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """Squared error against the clean image where the adjoint reaches z, else the inner objective itself."""
        assert isinstance(model, LatentRestorer)
        seed = self.config.seed
        clean = training_batch(self.images.train, self.config.data, seed=seed, step=step)
        operator = self.draw(len(clean), "train", step)
        y = operator.measure(clean, generator(seed, "noise", "train", step)).to(self.device)
        clean = clean.to(self.device)
        restored, solution = model.restore(y, operator, on_failure="ignore", **self.settings)
        error = (restored - clean).square().flatten(1).sum(1)
        outer = error if "z" in solution.differentiable else solution.value
        good = solution.status != jiio.Status.NONFINITE
        loss = torch.where(good, outer, torch.zeros_like(outer)).sum() / good.sum().clamp_min(1)
        problem = model.problem(y, operator)
        source = generator(seed, "probe", step)
        penalty = jacobian_penalty(problem.cell, detach(solution.z), detach(solution.x), generator=source).mean()
        figures = {
            "error": float(error.detach().mean()),
            "psnr": float(psnr(restored.detach(), clean).mean()),
            "jacobian": float(penalty.detach()),
            "converged": float(solution.converged.float().mean()),
            "evaluations": float(solution.evaluations.cell),
        }
        return loss + self.config.model.jacobian * penalty, figures

    def evaluate(self, model: nn.Module) -> list[Row]:
        """Ours beside the classical restorers on the test images; noiseless inpainting keeps the known pixels."""
        assert isinstance(model, LatentRestorer)
        case = self.case(self.images.test, "test")
        clean, operator, y = case.clean, case.operator, case.y
        with torch.no_grad():
            rows = [
                figures(name, case.finished(image), clean, operator) for name, image in self.classical(case).items()
            ]
            begin = time.perf_counter()
            settings = self.settings | {"adjoint": jiio.Detached(), "max_steps": max(200, self.config.joint.max_steps)}
            restored, solution = model.restore(y.to(self.device), operator, on_failure="ignore", **settings)
            seconds = time.perf_counter() - begin
        ours = figures("joint (jiio)", case.finished(restored.cpu()), clean, operator)
        ours |= {
            "evaluations": float(solution.evaluations.cell),
            "VJPs": float(solution.evaluations.vjp),
            "converged": float(solution.converged.float().mean()),
            "seconds": seconds,
        }
        return [*rows, ours]

    def case(self, clean: Tensor, purpose: str) -> Case:
        """Images with their corruption."""
        operator = self.draw(len(clean), purpose, 0)
        return Case(clean, operator, operator.measure(clean, generator(self.config.seed, "noise", purpose, 0)))

    def classical(self, case: Case) -> dict[str, Tensor]:
        """The baselines by name, tuned on training images."""
        start = case.operator.start(case.y)
        named = {"start": start}
        if len(self.images.train) > 0:
            named["mean image"] = self.images.train.mean(0).expand_as(start)
            tuning = [self.case(self.images.train[:10], "tune")]
            for baseline in serving(case.operator):
                named[baseline.name] = baseline(case.y, case.operator, best(baseline, tuning))
        return named


def figures(name: str, restored: Tensor, clean: Tensor, operator: LinearMap) -> Row:
    """One row of the table: means over the images."""
    row: Row = {"method": name, "PSNR": float(psnr(restored, clean).mean())}
    if isinstance(operator, Inpaint):
        row["PSNR in the hole"] = float(psnr(restored, clean, mask=1 - operator.mask).mean())
    row["SSIM"] = float(ssim(restored, clean).mean())
    return row
