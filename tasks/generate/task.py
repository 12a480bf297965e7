"""Generative models without an encoder: a decoder trained on images whose codes are found by the joint solve.

JIIO's generative experiment (Gurumurthy et al. 2021): the code of every training image minimises

    |decode(x) - image|^2 + prior |x|^2,    decode(x) = head(z*) + mean image,  z* = cell(z*, x),

and the decoder is trained on the value of that minimum. As the outer loss is the inner objective, the envelope gradient
is exact and costs one evaluation. The same decoder can be trained with nested Adam, or as a variational autoencoder
with an encoder of the same kind. Samples are decoded from a density fitted to the codes of training images.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import fail
from jiio.diagnostics import jacobian_penalty
from jiio.models import build
from jiio.outputs.seeds import generator
from jiio.outputs.shares import drawn, mean_over
from jiio.tasks.frame import drawings
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import ConfigError, RunConfig, whole
from jiio.tasks.frame.dealing import dealt
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.task import AbstractTask
from jiio.tasks.images.batches import resident, training_batch
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.metrics import psnr, ssim
from jiio.tasks.solving.foresight import check_foreseen, due
from jiio.tasks.solving.latent import DecoderConfig

from .codes import GaussianMixture
from .fidelity import Features, Inception, fidelity
from .fit.fit import fit_images
from .generator import EXACT, LatentGenerator, encoder_plan
from .inference import AbstractInference
from .samples import nearest_neighbour_accuracy, sliced_wasserstein

Row = dict[str, str | float]
CHUNK = 256  # images fitted at a time


@dataclass(frozen=True)
class SamplingConfig:
    """The density of codes that samples come from.

    Args:
        components: of the Gaussian mixture; 1 for a single Gaussian
        codes: number of training images whose codes are fitted
        samples: number of images drawn and compared with as many test images
        features: file of torch-fidelity's Inception weights, for FID and KID; without it, distances of pixels alone
    """

    components: int = 1
    codes: int = 1000
    samples: int = 500
    features: str | None = None

    def __post_init__(self) -> None:
        whole("sampling.components", self.components, 1, 10_000)
        whole("sampling.codes", self.codes, 2, 10_000_000)
        whole("sampling.samples", self.samples, 2, 1_000_000)


@dataclass(frozen=True)
class GenerateConfig(RunConfig):
    """A training of a generator.

    Args:
        data: images
        model: the equilibrium decoder
        inference: how codes are found, the joint solve or one of the others of docs/generate.md
        sampling: the density of codes
    """

    MEASURED: ClassVar = ("data", "inference", "sampling")

    task: str = "generate"
    output: str = "runs/generate"
    data: DataConfig = field(default_factory=DataConfig)
    model: DecoderConfig = field(default_factory=lambda: DecoderConfig(prior=0.02, jacobian=0.1))
    inference: Choice = Choice("Joint")
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("model.latent", self.model.latent, 1, 1_000_000)
        self.model.plan(self.data)
        inference = self.inference.make("inference", "inference")
        check_foreseen("inference.metric_every", inference.metric_every, self.model.latent)
        if self.model.jacobian_at != "solution":  # two of the three inferences have no joint trajectory
            fail("model.jacobian_at", "solution, for a generator", self.model.jacobian_at, error=ConfigError)


def build_generator(config: GenerateConfig, mean: Tensor) -> LatentGenerator:
    """A freshly initialised generator around a mean image (C, H, W)."""
    inference: AbstractInference = config.inference.make("inference", "inference")
    plan = config.model.plan(config.data)
    decoder = build(plan)
    encoder = None
    if inference.encodes:
        encoder = build(encoder_plan(plan), tolerance=jiio.Tolerance(1e-5, 1e-3), on_failure="ignore")
    foresight = inference.metric_every > 0
    return LatentGenerator(decoder, mean, prior=config.model.prior, encoder=encoder, foresight=foresight)


def load_generator(checkpoint: Checkpoint, argument: str = "--checkpoint") -> LatentGenerator:
    """The generator of a checkpoint, in eval mode; no data are needed."""
    config = checkpoint.config
    if not isinstance(config, GenerateConfig):
        came = f"{checkpoint.path}, a training of the task {config.task!r}"
        fail(argument, "a generator", came, "Train one by `jiio train generate-faces`.", InputError)
    data = config.data
    shape = (data.channels, data.size, data.size)
    model = checkpoint.network(lambda: build_generator(config, torch.zeros(shape)))
    return model.eval().requires_grad_(False)


class Generate(AbstractTask):
    """The task ``generate`` of a training configuration."""

    PICTURES = ("samples.png", "reconstructions.png", "interpolations.png")

    def __init__(self, config: GenerateConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.inference: AbstractInference = config.inference.make("inference", "inference")
        self.images = load_images(config.data, data_root=data_root)
        if len(self.images.train) < 2:
            fail("data", "at least two training images", f"{len(self.images.train)}", error=InputError)
        self.near = resident(self.images.train, self.device)

    def examples(self) -> Tensor:
        return self.images.classes

    def part(self, chosen: Tensor, config: GenerateConfig) -> Generate:
        mine = copy.copy(self)
        mine.config = config
        mine.images = self.images.part(chosen)
        mine.near = resident(mine.images.train, self.device)
        return mine

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> nn.Module:
        return load_generator(checkpoint, "CHECKPOINT")

    def model(self) -> nn.Module:
        return build_generator(self.config, self.images.train.mean(0))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) of a step and noise (B, latent) for their codes."""
        seed = self.config.seed
        images = training_batch(self.near, self.config.data, seed=seed, step=step)
        source, latent = generator(seed, "code", step), self.config.model.latent
        noise = drawn(lambda n: torch.randn(n, latent, generator=source), len(images))
        return images.to(self.device), noise.to(self.device)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The mean of the inference's loss over the images, and the Jacobian penalty."""
        assert isinstance(model, LatentGenerator)
        images, noise = self.batch(step)
        measuring = model.foresee() if due(self.inference.metric_every, step) else 0
        inferred = self.inference.infer(model, images, noise)
        model.observe(images, inferred)

        # The mean over the images whose inference came to anything.
        good = torch.isfinite(inferred.loss)
        loss = mean_over(inferred.loss, good)
        cell, source = model.problem(images, EXACT).cell, generator(self.config.seed, "probe", step)
        penalty = jacobian_penalty(cell, inferred.z, inferred.x, generator=source).mean()
        with torch.no_grad():
            quality = psnr(model.decode(inferred.z).clamp(0, 1), images).mean()
        return loss + self.config.model.jacobian * penalty, {
            "psnr": float(quality),
            "code": float(inferred.x.norm(dim=1).mean()),
            "jacobian": float(penalty.detach()),
            "converged": float(inferred.converged.float().mean()),
            "calls": float(inferred.calls),
            "measuring": float(measuring),
        }

    def evaluate(self, model: nn.Module) -> list[Row]:
        """Reconstruction of test images, by the training's own inference and by the joint fit; samples; references."""
        assert isinstance(model, LatentGenerator)
        test = self.images.test
        if len(test) < 2:
            fail("data.test_share", "at least two test images", f"{len(test)}", error=InputError)
        named = self.config.sampling.features
        features = None if named is None else Inception(Path(named), "sampling.features")

        rows = [
            quality(name, image, test) | {"evaluations + VJPs": calls, "converged": converged}
            for name, image, calls, converged in self.reconstructions(model, test)
        ]
        rows.append(quality("mean image", self.images.train.mean(0).expand_as(test), test))

        # Training images are what a perfect generator would reach; as many of them as of the samples.
        count = min(self.config.sampling.samples, len(test))
        sets = {"samples": self.samples(model, count)}
        half = self.images.train[torch.randperm(len(self.images.train), generator=generator(self.config.seed, "half"))]
        sets["training images"] = half[:count]
        for name, images in sets.items():
            rows.append({"images": name} | distances(images, test[: max(count, 2)], features))
        return rows

    @torch.no_grad()
    def reconstructions(self, model: LatentGenerator, images: Tensor) -> list[tuple[str, Tensor, float, float]]:
        """(name, clipped images, evaluations plus VJPs of a batch, share converged)."""
        name = self.config.inference.name

        def rebuilt(part: Tensor) -> tuple[tuple[Tensor, int, Tensor], ...]:
            there = part.to(self.device)
            own, fit = self.inference.infer(model, there), fit_images(model, there)
            inferred = model.decode(own.z).clamp(0, 1).cpu(), own.calls, own.converged.cpu()
            return inferred, (fit.image.clamp(0, 1).cpu(), fit.evaluations + fit.vjps, fit.converged.cpu())

        # The price is the mean over the parts, each a batch of its own.
        found = zip(*dealt(images.split(CHUNK), rebuilt), strict=True)
        return [
            (
                key,
                torch.cat([image for image, _, _ in parts]),
                sum(calls for _, calls, _ in parts) / len(parts),
                float(torch.cat([c.float() for _, _, c in parts]).mean()),
            )
            for key, parts in zip((name, "joint fit"), found, strict=True)
        ]

    @torch.no_grad()
    def density(self, model: LatentGenerator) -> GaussianMixture:
        """Of the codes of training images, by the training's own inference."""
        images = self.images.train[: self.config.sampling.codes]
        parts = dealt(images.split(CHUNK), lambda p: self.inference.infer(model, p.to(self.device)).x.cpu())
        codes = torch.cat(parts).to(self.device)
        codes = codes[torch.isfinite(codes).all(1)]
        source = generator(self.config.seed, "mixture")
        return GaussianMixture.fit(codes, self.config.sampling.components, generator=source)

    def samples(self, model: LatentGenerator, count: int) -> Tensor:
        """(count, C, H, W) on the CPU."""
        codes = self.density(model).draw(count, generator=generator(self.config.seed, "samples"))
        return torch.cat([model.generate(part).cpu() for part in codes.split(CHUNK)])

    @torch.no_grad()
    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """Sheets of samples, of reconstructions, and of the way from one image to another."""
        assert isinstance(model, LatentGenerator)
        test = self.images.test if len(self.images.test) > 1 else self.images.train
        drawn = self.samples(model, 40)
        rows = {f"{8 * i + 1} to {8 * i + 8}": part for i, part in enumerate(drawn.split(8))}

        # The codes of a few test images, and the straight lines between them.
        some = test[:8].to(self.device)
        fit = fit_images(model, some)
        ways = between(model, fit.x[: 2 * min(4, len(some) // 2)])

        scale = max(1, 96 // self.config.data.size)
        return {
            "samples.png": drawings.sheet(rows, scale=scale),
            "reconstructions.png": drawings.sheet({"test image": some, "fit": fit.image}, scale=scale),
            "interpolations.png": drawings.sheet(ways, scale=scale),
        }


def between(model: LatentGenerator, codes: Tensor) -> dict[str, Tensor]:
    """Eight images along the straight line from each code of odd number to the next (2 K, latent)."""
    shares = torch.linspace(0, 1, 8, device=codes.device)[:, None]
    ways = {}
    for i in range(len(codes) // 2):
        a, b = codes[2 * i], codes[2 * i + 1]
        ways[f"{2 * i + 1} to {2 * i + 2}"] = model.generate((1 - shares) * a + shares * b)
    return ways


def quality(name: str, images: Tensor, real: Tensor) -> Row:
    """The columns about images (N, C, H, W) that should be these."""
    return {"images": name, "PSNR": float(psnr(images, real).mean()), "SSIM": float(ssim(images, real).mean())}


def distances(samples: Tensor, real: Tensor, features: Features | None = None) -> Row:
    """The columns about a set of samples: of pixels; FID and KID where there are features (:mod:`.fidelity`)."""
    row: Row = {
        "sliced Wasserstein": sliced_wasserstein(samples, real),
        "told apart": nearest_neighbour_accuracy(samples, real),
    }
    return row if features is None else row | fidelity(samples, real, features)
