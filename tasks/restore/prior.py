"""Training of the image-space prior, and of the direct restorer, on patches with Gaussian noise of every level.

``prior``: the gradient step x - grad E(x, s) of :class:`jiio.models.ImagePrior` is trained to remove noise of standard
deviation s (Hurault, Leclaire, Papadakis 2022). ``direct``: the same network, trained so that x - R(z*) is the clean
image; no energy, no second derivatives, about three times cheaper per step, and good for denoising alone.

Both unroll a random number of plain iterations, drawn anew at every step. A network that must be right after 3 steps
and after 6 learns to be at its fixed point by then, so what is trained is what a converged solve gives later.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from jiio.checks import check_instance, check_number, fail
from jiio.models.images.prior import ImagePrior, ImagePriorConfig
from jiio.outputs.seeds import generator
from jiio.outputs.shares import alone, drawn, shared_mean
from jiio.recording import recorded_loss
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.config import RunConfig, whole
from jiio.tasks.frame.load import ConfigError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.precision import number_format
from jiio.tasks.frame.task import AbstractTask
from jiio.tasks.images.config import check_source
from jiio.tasks.images.galleries import load_pictures
from jiio.tasks.images.metrics import psnr
from jiio.tasks.images.patches import draw_patches

from .base import AbstractRestorer
from .imagespace import DirectRestorer, ImageRestorer


@dataclass(frozen=True)
class PatchConfig:
    """Training patches.

    Args:
        families: photos, train400, celeba, cifar10 or folder:PATH; each has the same share
        size: height and width of a patch, pixels
        batch_size: patches per training step
    """

    families: tuple[str, ...] = ("photos",)
    size: int = 64
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.families:
            fail("data.families", "at least one family of pictures", "none", error=ConfigError)
        for family in self.families:
            check_source("data.families", family, kind="gallery", what="a gallery of pictures")
        whole("data.size", self.size, 8, 512)
        if self.size % 4:
            fail("data.size", "a multiple of 4 pixels", self.size, error=ConfigError)
        whole("data.batch_size", self.batch_size, 1, 65_536)


@dataclass(frozen=True)
class NoiseConfig:
    """The noise levels that are trained.

    Args:
        low: the lowest, on the image range [0, 1]
        high: the highest
    """

    low: float = 0.0
    high: float = 0.22

    def __post_init__(self) -> None:
        check_number("noise.high", self.high, 0.0, 1.0, open_low=True)
        check_number("noise.low", self.low, 0.0, self.high)


@dataclass(frozen=True)
class UnrollConfig:
    """How many iterations a training step unrolls.

    Args:
        low: the fewest
        high: the most
        penalty: weight of the relative squared residual |f(z) - z|^2 / |z|^2 at the end
    """

    low: int = 3
    high: int = 6
    penalty: float = 1.0

    def __post_init__(self) -> None:
        whole("unroll.low", self.low, 1, 1000)
        whole("unroll.high", self.high, self.low, 1000)
        check_number("unroll.penalty", self.penalty, 0.0)


@dataclass(frozen=True)
class PriorConfig(RunConfig):
    """A training of an image prior, or of a direct restorer.

    Args:
        data: training patches
        noise: the noise levels that are trained
        model: sizes of the network; channels 1 for grey and 3 for colour
        unroll: how many iterations a training step unrolls
    """

    task: str = "prior"
    output: str = "runs/prior"
    data: PatchConfig = field(default_factory=PatchConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: ImagePriorConfig = field(default_factory=ImagePriorConfig)
    unroll: UnrollConfig = field(default_factory=UnrollConfig)


VALIDATION = 8  # batches


def held_out(families: list[list[Tensor]]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Pictures to train on and to validate on, of each family: every tenth, beginning with the last.

    Errors: ConfigError where a family is a single picture.
    """
    for pictures in families:
        if len(pictures) < 2:
            fail("validate_every", "families of two pictures or more", "one of 1", "Set it to 0.", ConfigError)
    kept = [pictures[::-10] for pictures in families]
    return [[p for i, p in enumerate(f) if (len(f) - 1 - i) % 10] for f in families], kept


class Prior(AbstractTask):
    """The task ``prior`` of a training configuration."""

    ANY_SIZE = True

    def __init__(self, config: PriorConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.low = number_format(config.precision, self.device)
        channels = config.model.channels
        families = [load_pictures(family, channels, data_root=data_root) for family in config.data.families]
        self.families, self.kept = held_out(families) if config.validate_every else (families, [])

    def model(self) -> nn.Module:
        return ImagePrior(self.config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def lowered(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """As :meth:`loss` itself has it: the energy and the error are outside."""
        return contextlib.nullcontext()

    def noisy_patches(self, step: int, families: list[list[Tensor]] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, noisy, level) of one training step; families: to cut from in place of the training's."""
        config = self.config
        clean = draw_patches(
            self.families if families is None else families,
            channels=config.model.channels,
            size=config.data.size,
            batch=config.data.batch_size,
            seed=config.seed,
            step=step,
        )
        source = generator(config.seed, "noise", step)
        chances = drawn(lambda n: torch.rand(n, generator=source), len(clean))
        level = config.noise.low + (config.noise.high - config.noise.low) * chances
        noise = drawn(lambda n: torch.randn(n, *clean.shape[1:], generator=source), len(clean))

        # Added where the network computes.
        clean, level, noise = (t.to(self.device) for t in (clean, level, noise))
        return clean, clean + level.view(-1, 1, 1, 1) * noise, level

    def denoise(self, model: ImagePrior, noisy: Tensor, level: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """(denoised, z, u), with the graph to the parameters."""
        leaf = noisy.contiguous(memory_format=torch.channels_last).requires_grad_()
        residual, z, u = model.unrolled(leaf, level, steps)
        (gradient,) = torch.autograd.grad(0.5 * residual.float().square().sum(), leaf, create_graph=True)
        return noisy - gradient, z, u

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The error of the denoised patches, weighted by their noise, and the residual after the unrolled steps."""
        assert isinstance(model, ImagePrior)
        clean, noisy, level = self.noisy_patches(step)
        unroll = self.config.unroll
        source = generator(self.config.seed, "unroll", step)
        steps = int(torch.randint(unroll.low, unroll.high + 1, (), generator=source))

        def measured(clean: Tensor, noisy: Tensor, level: Tensor) -> list[Tensor]:
            return self.measured(model, (clean, noisy, level), steps)

        # In parts of a batch a mean over all of it is asked for in the middle, which no launch can wait for.
        about = (type(self), steps, self.low, unroll.penalty)
        batch = clean, noisy, level
        total, figures = recorded_loss(measured, model, batch, about) if alone() else measured(*batch)
        names = ("psnr", "gain", "residual")
        return total, dict(zip(names, figures.tolist(), strict=True)) | {"unrolled": float(steps)}

    def measured(self, model: ImagePrior, batch: tuple[Tensor, Tensor, Tensor], steps: int) -> list[Tensor]:
        """The loss of a batch of :meth:`noisy_patches`, and (3,) psnr, gain and residual; no number is looked at."""
        clean, noisy, level = batch

        # The residual is relative, |f(z) - z|^2 / |z|^2, and only its numerator is trained.
        with torch.autocast(self.device.type, self.low, enabled=self.low != torch.float32):
            denoised, z, u = self.denoise(model, noisy, level, steps)
            residual = (model.cell(z, u) - z).float().square().mean() / shared_mean(z.detach().float().square().mean())
        error = (denoised.float() - clean).square().flatten(1).mean(1)

        # An error of a noisy patch counts for less: between equal weight per patch and equal weight per decibel.
        loss = (error / (level.square() + 1e-4).sqrt()).mean()
        gains, noticed = 10 * torch.log10(level.square() / error.detach()), level > 0.02
        gain = torch.where(noticed, gains, torch.zeros_like(gains)).sum() / noticed.sum()
        similarity = psnr(denoised.detach().float().clamp(0, 1), clean).mean()
        figures = [figure.double() for figure in (similarity, gain, residual.detach().sqrt())]
        return [loss + self.config.unroll.penalty * residual, torch.stack(figures)]

    def validate(self, model: nn.Module) -> float:
        """The error of denoising patches of pictures that are not trained on, as the loss weighs it."""
        assert isinstance(model, ImagePrior)
        total = 0.0
        for i in range(VALIDATION):
            clean, noisy, level = self.noisy_patches(i, self.kept)
            with torch.enable_grad():
                denoised = self.denoise(model, noisy, level, self.config.unroll.high)[0].detach()
            error = (denoised.float() - clean).square().flatten(1).mean(1)
            total += float((error / (level.square() + 1e-4).sqrt()).mean())
        return total / VALIDATION

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> ImagePrior:
        """The network of a checkpoint, in evaluation mode."""
        config = check_instance("checkpoint.config", checkpoint.config, PriorConfig)
        return checkpoint.network(lambda: ImagePrior(config.model)).eval()

    @classmethod
    def restorer(cls, checkpoint: Checkpoint) -> AbstractRestorer:
        """The restorer that these weights make."""
        return ImageRestorer(cls.trained(checkpoint))

    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
        """Restorers are measured on pictures of their own size, by :func:`.compare.benchmark.benchmark`."""
        fail("task", "one with test images of its own", "a restorer", "Use `jiio compare --on set12`.", ConfigError)


class Direct(Prior):
    """The task ``direct`` of a training configuration."""

    @classmethod
    def restorer(cls, checkpoint: Checkpoint) -> AbstractRestorer:
        return DirectRestorer(cls.trained(checkpoint))

    def denoise(self, model: ImagePrior, noisy: Tensor, level: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        residual, z, u = model.unrolled(noisy.contiguous(memory_format=torch.channels_last), level, steps)
        return noisy - residual.float(), z, u
