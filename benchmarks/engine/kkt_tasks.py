"""The four trainings in which the exact outer gradient is compared with the first-order one.

    faces, celeba  box inpainting by an equilibrium decoder, trained through the solve for its code (task ``restore``)
    inpainting     an image prior (task ``prior``) trained bilevel to fill in lost pixels: the answer is x* itself
    few-shot       Omniglot, 10 ways (task ``meta``): queries are classified through the x* of the support images

Each offers the loss of a training step under any gradient, small inner problems to measure a damping on, and figures
of the trained model: on images nobody trained on, and, to choose settings by, on others that are neither.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.layout import Tree
from jiio.models.images.prior import ImagePrior, ImagePriorConfig
from jiio.outputs.seeds import derive, generator
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.images.batches import training_batch
from jiio.tasks.images.metrics import psnr
from jiio.tasks.images.patches import draw_patches
from jiio.tasks.maps.corruption import Inpaint
from jiio.tasks.meta.adaptation import JointAdaptation
from jiio.tasks.meta.task import Meta, MetaConfig, measure
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.restore.prior import Prior, PriorConfig
from jiio.tasks.solving.latent import LatentRestorer

PROBES = 4  # samples that a damping is measured on
CALM: dict[str, Any] = {"adjoint": jiio.Detached(), "on_failure": "ignore"}


@dataclass(frozen=True)
class Inner:
    """A few inner problems of a training step, and what they are solved with."""

    problem: jiio.Problem
    x0: Tree
    settings: dict[str, Any]

    def solved(self) -> jiio.Solution:
        """As training solves them."""
        return jiio.solve(self.problem, self.x0, **(self.settings | CALM))


class Contest(ABC):
    """A training. seed: of its data and of its weights. tuning: whether settings are chosen: keeps data back."""

    FIRST: jiio.AbstractAdjoint = jiio.Implicit(tolerance=jiio.Tolerance(1e-6, 1e-3))  # as tight as pays
    CLIP = 1.0

    @abstractmethod
    def __init__(self, seed: int, root: Path | None, tuning: bool) -> None:
        """Reads the data."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Freshly made, in train mode."""

    @abstractmethod
    def loss(self, model: Any, step: int, adjoint: jiio.AbstractAdjoint) -> Tensor:
        """Of a training step under a gradient."""

    @abstractmethod
    def inner(self, model: Any, step: int) -> Inner:
        """A few inner problems like those of that step, under the weights of now."""

    @abstractmethod
    def figures(self, model: Any) -> dict[str, float]:
        """The first is what settings are chosen by, and what the contest is about; more is better."""


class Faces(Contest):
    """Box inpainting by a decoder."""

    NAME = "restore-faces"
    OVER: ClassVar[dict[str, Any]] = {}

    def __init__(self, seed: int, root: Path | None, tuning: bool) -> None:
        path = shipped("--config", self.NAME, "configs", ".yaml")
        over = self.OVER | {"seed": seed, "validate_every": 10_000 if tuning else 0}
        config = build(RestoreConfig, merge(read_yaml("--config", path), over))
        self.task, self.tuning = Restore(config, data_root=root), tuning

    def model(self) -> LatentRestorer:
        torch.manual_seed(derive(self.task.config.seed, "model"))
        model = self.task.model().train()
        assert isinstance(model, LatentRestorer)
        return model

    def loss(self, model: Any, step: int, adjoint: jiio.AbstractAdjoint) -> Tensor:
        self.task.settings["adjoint"] = adjoint
        return self.task.loss(model, step)[0]

    def inner(self, model: Any, step: int) -> Inner:
        data, seed = dataclasses.replace(self.task.config.data, batch_size=PROBES), self.task.config.seed
        clean = training_batch(self.task.images.train, data, seed=seed, step=step)
        operator = self.task.draw(clean, "probe", step)
        y = operator.measure(clean, generator(seed, "noise", "probe", step))
        return Inner(model.problem(y, operator), model.start(y), self.task.settings)

    @torch.no_grad()
    def figures(self, model: Any) -> dict[str, float]:
        # Few images are kept back: each has a few holes.
        clean = self.task.kept.repeat(4, 1, 1, 1) if self.tuning else self.task.images.test
        drawn = self.task.draw(clean, "test", 0)
        assert isinstance(drawn, Inpaint)
        operator = Inpaint(drawn.mask)
        settings = self.task.settings | CALM | {"max_steps": 200}
        restored, solution = model.restore(operator.A(clean), operator, **settings)
        restored = restored.clamp(0, 1)

        decibel = psnr(restored, clean, mask=1 - operator.mask).mean()
        share = solution.converged.float().mean()
        return {"figure": float(decibel), "whole image": float(psnr(restored, clean).mean()), "converged": float(share)}


class CelebA(Faces):
    """The same on CelebA, 32 x 32, with a hole as large a part of it."""

    NAME = "restore-celeba"
    OVER: ClassVar = {"data": {"size": 32}, "corruption": {"name": "BoxHole", "options": {"side": 11, "sigma": 0.05}}}


class Patches(Prior):
    """The task ``prior``, for its data and its denoising loss."""


class Inpainting(Contest):
    """argmin 1/2 W |M (x - y)|^2 + E(x), half of the pixels lost, the rest noisy; E trained for the error of x*."""

    CLIP = 10.0
    LEVEL, NOISE, WEIGHT, LOST = 25 / 255, 10 / 255, 6.25, 0.5
    SIZES = ImagePriorConfig(features=16, wide=24, depth=1)
    SETTINGS: ClassVar[dict[str, Any]] = {"tolerance": jiio.Tolerance(atol=1e-4, rtol=3e-3), "max_steps": 40}
    WARM = 100  # steps as a denoiser first, the same for every gradient and no part of its time

    def __init__(self, seed: int, root: Path | None, tuning: bool) -> None:
        values = {
            "seed": seed,
            "data": {"families": ["train400"], "size": 20, "batch_size": 4},
            "model": vars(self.SIZES),
        }
        values |= {"noise": {"low": self.LEVEL, "high": self.LEVEL}}
        self.task, self.tuning = Patches(build(PriorConfig, values), data_root=root), tuning
        (pictures,) = self.task.families
        self.task.families, self.kept = [pictures[:-40]], [pictures[-20:] if tuning else pictures[-40:-20]]

    def model(self) -> ImagePrior:
        torch.manual_seed(derive(self.task.config.seed, "model"))
        model = ImagePrior(self.SIZES)

        # As a denoiser, on patches that the contest does not come to.
        optimiser = torch.optim.Adam(model.parameters(), 2e-3)
        for step in range(self.WARM):
            clean, noisy, level = self.task.noisy_patches(1_000_000 + step)
            loss = (self.task.denoise(model, noisy, level, 4)[0] - clean).square().flatten(1).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self.CLIP)
            optimiser.step()
        return model

    def measured(self, clean: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """(start (B, 1, H, W), mask (B, 1, H, W) of what is known): a lost pixel begins as a mean of known ones."""
        mask = (torch.rand(clean.shape, generator=source) >= self.LOST).float()
        y = mask * (clean + self.NOISE * torch.randn(clean.shape, generator=source))
        near = F.avg_pool2d(y, 5, 1, 2) / F.avg_pool2d(mask, 5, 1, 2).clamp_min(1e-3)
        return y + (1 - mask) * near, mask

    def problem(self, model: ImagePrior, start: Tensor, mask: Tensor) -> jiio.Problem:
        return model.problem(lambda x: self.fidelity(x, start, mask), level=self.LEVEL)

    def fidelity(self, x: Tensor, start: Tensor, mask: Tensor) -> Tensor:
        return 0.5 * self.WEIGHT * (mask * (x - start)).square().flatten(1).sum(1)

    def loss(self, model: Any, step: int, adjoint: jiio.AbstractAdjoint) -> Tensor:
        clean, _, level = self.task.noisy_patches(step)
        start, mask = self.measured(clean, generator(self.task.config.seed, "loss", step))
        exact = isinstance(adjoint, jiio.KKT)
        settings: dict[str, Any] = self.SETTINGS | CALM | ({"adjoint": adjoint} if exact else {})
        solution = jiio.solve(self.problem(model, start, mask), start, **settings)

        # First-order: one more gradient step from x*, as if x* did not depend on the weights.
        x = solution.x
        if not exact:
            slope = x - self.task.denoise(model, x, level, 4)[0] + self.WEIGHT * mask * (x - start)
            x = x - slope / self.WEIGHT
        good = solution.status != jiio.Status.NONFINITE
        error = (x - clean).square().flatten(1).sum(1)
        return torch.where(good, error, torch.zeros_like(error)).mean()

    def inner(self, model: Any, step: int) -> Inner:
        clean = self.task.noisy_patches(step)[0][:PROBES]
        start, mask = self.measured(clean, generator(self.task.config.seed, "loss", step))
        return Inner(self.problem(model, start, mask), start, self.SETTINGS)

    def figures(self, model: Any) -> dict[str, float]:
        clean = draw_patches(self.kept, channels=1, size=48, batch=16, seed=0, step=0)
        start, mask = self.measured(clean, generator(0, "test"))
        solution = jiio.solve(self.problem(model, start, mask), start, max_steps=150, **CALM)
        decibel = psnr(solution.x.clamp(0, 1), clean, mask=1 - mask).mean()
        figures = {"figure": float(decibel), "whole image": float(psnr(solution.x.clamp(0, 1), clean).mean())}
        return figures | {"converged": float(solution.converged.float().mean())}


@dataclass(frozen=True)
class Adaptation(JointAdaptation):
    """The joint solve, with any gradient."""

    adjoint: jiio.AbstractAdjoint = jiio.KKT()

    def solve_settings(self) -> jiio.SolveSettings:
        return super().solve_settings().merged(adjoint=self.adjoint)


class FewShot(Contest):
    """Omniglot; the figure is the accuracy on new classes, in per cent."""

    def __init__(self, seed: int, root: Path | None, tuning: bool) -> None:
        values = {
            "task": "meta",
            "seed": seed,
            "data": {"family": "omniglot", "ways": 10, "queries": 3, "batch_size": 4},
        }
        values["test"] = {"tasks": 100, "ways": [20], "shots": [1]}
        self.task = Meta(build(MetaConfig, values), data_root=root)
        # Classes of the training serve to choose by: episodes of them are endless.
        self.task.test = self.task.train if tuning else self.task.test

    def model(self) -> nn.Module:
        torch.manual_seed(derive(self.task.config.seed, "model"))
        return self.task.model().train()

    def loss(self, model: Any, step: int, adjoint: jiio.AbstractAdjoint) -> Tensor:
        self.task.adaptation = Adaptation(adjoint=adjoint)
        return self.task.loss(model, step)[0]

    def inner(self, model: Any, step: int) -> Inner:
        batch = self.task.train.draw(2, ways=10, shots=1, queries=1, source=generator(step, "probe"))
        problem = model.problem(model.images(batch.support), batch.ways)
        settings = Adaptation().solve_settings().arguments() | {"rule": jiio.GradientStep(0.5)}
        return Inner(problem, model.start(2), settings)

    def figures(self, model: Any) -> dict[str, float]:
        (_, adapted, _), (_, plain, _), _ = measure(self.task, model, 20, 1)
        return {"figure": 100 * float(adapted.mean()), "not adapted": 100 * float(plain.mean())}


CONTESTS = {"faces": Faces, "celeba": CelebA, "inpainting": Inpainting, "few-shot": FewShot}
RATES = {"faces": 5e-3, "celeba": 5e-3, "inpainting": 1e-3, "few-shot": 3e-3}
