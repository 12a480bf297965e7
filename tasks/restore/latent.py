"""The task ``restore``: an equilibrium decoder is trained to restore images by joint optimisation over its latent code.

The paper's inverse problems (Gurumurthy et al. 2021): for a measurement y = A(image) + noise, minimise over the code x

    |A(decode(x)) - y|^2 + prior |x|^2,    decode(x) = head(z*) + mean image,  z* = cell(z*, x),

with state, multiplier and code solved together. The decoder is trained *through* that solve: the outer loss is the
error of the restored image against the clean one, everywhere, also where nothing was measured.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import JiioError, check_instance, fail
from jiio.diagnostics import jacobian_penalty
from jiio.layout import Tree
from jiio.models import build
from jiio.outputs.seeds import generator
from jiio.outputs.shares import mean_over
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig, RunConfig, whole
from jiio.tasks.frame.load import ConfigError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.task import AbstractTask
from jiio.tasks.images.batches import training_batch
from jiio.tasks.images.config import FOLDER, DataConfig
from jiio.tasks.images.disk import OnDisk, on_disk
from jiio.tasks.images.families import load_images
from jiio.tasks.images.metrics import psnr, ssim
from jiio.tasks.images.sources import ImageSet
from jiio.tasks.maps.base import Inpaint, LinearMap
from jiio.tasks.maps.forward import AbstractMap
from jiio.tasks.solving.foresight import check_foreseen, due
from jiio.tasks.solving.latent import DecoderConfig, LatentRestorer
from jiio.tasks.solving.settings import JointConfig
from jiio.tasks.solving.trajectory import place

from .base import AbstractRestorer
from .compare.baselines import Trial, best, serving
from .decoded import DecoderRestorer

Row = dict[str, str | float]

# What trains in minutes on one core and converges: the shipped recipe. The first-order gradient is the paper's; KKT is
# exact, and no better here (docs/results/gradients.md).
DECODER = DecoderConfig(
    Choice("Dense", {"features": 128, "gain": 0.5, "scaling": "spectral"}), latent=64, prior=0.1, jacobian=0.1
)
JOINT = JointConfig(adjoint=Choice("Implicit"), atol=1e-4, rtol=5e-3, max_steps=80)
OPTIMISER = OptimiserConfig(rate=5e-3)
KEPT = 64  # images to validate on, at most


@dataclass(frozen=True)
class RestoreConfig(RunConfig):
    """A training of the latent restorer, from the data to the files it leaves.

    Args:
        data: images
        corruption: how images are damaged
        model: the equilibrium decoder
        joint: the joint solve
    """

    task: str = "restore"
    output: str = "runs/restore"
    data: DataConfig = field(default_factory=DataConfig)
    corruption: Choice = Choice("BoxHole", {"side": 8, "sigma": 0.1})
    model: DecoderConfig = DECODER
    joint: JointConfig = JOINT
    optimiser: OptimiserConfig = OPTIMISER

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("model.latent", self.model.latent, 1, 1_000_000)
        self.model.plan(self.data)
        check_foreseen("joint.metric_every", self.joint.metric_every, self.model.latent)
        corruption = self.corruption.make("corruption", "corruption")
        try:  # does it fit the images?
            blank = torch.full((1, self.data.channels, self.data.size, self.data.size), 0.5)
            corruption.map(blank, generator=generator(self.seed))
        except JiioError as error:
            raise ConfigError(f"corruption: {error}") from error
        except Exception as error:  # a class of one's own may raise anything
            told = f"{self.corruption.name} cannot draw for these images ({type(error).__name__}: {error})"
            raise ConfigError(f"corruption: {told}.") from error


class Restore(AbstractTask):
    """The task ``restore`` of a training configuration."""

    def __init__(self, config: RestoreConfig, *, data_root: Path | None = None) -> None:
        self.config = config
        self.device = check_device(config.device)
        self.corruption = config.corruption.make("corruption", "corruption")
        self.settings = config.joint.arguments()
        folder = config.data.family.removeprefix(FOLDER)
        own = folder != config.data.family  # pictures of one's own may be more than the memory holds
        self.images = on_disk(Path(folder), config.data) if own else load_images(config.data, data_root=data_root)
        self.kept = torch.empty(0)
        if config.validate_every:
            self.images, self.kept = held_out(self.images)

    def examples(self) -> Tensor:
        return self.images.classes

    def part(self, chosen: Tensor, config: RestoreConfig) -> Restore:
        mine = copy.copy(self)
        mine.config, mine.settings = config, config.joint.arguments()
        mine.images = self.images.part(chosen)
        return mine

    def draw(self, clean: Tensor, purpose: str, step: int) -> AbstractMap:
        """The corruption of one batch, a pure function of (seed, purpose, step)."""
        return self.corruption.map(clean, generator=generator(self.config.seed, "corruption", purpose, step))

    def model(self) -> LatentRestorer:
        images, config = self.images.train, self.config.data
        grey = torch.full((config.channels, config.size, config.size), 0.5)
        return build_restorer(self.config, images.mean(0) if len(images) else grey)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """Squared error against the clean image where the adjoint reaches z, else the inner objective itself."""
        assert isinstance(model, LatentRestorer)
        seed = self.config.seed
        clean = training_batch(self.images.train, self.config.data, seed=seed, step=step)
        operator = self.draw(clean, "train", step)
        measuring = model.foresee() if due(self.config.joint.metric_every, step) else 0
        y = operator.measure(clean, generator(seed, "noise", "train", step)).to(self.device)
        clean = clean.to(self.device)
        where = place(self.config.model.jacobian_at, generator(seed, "iterate", step))
        settings: dict[str, Any] = self.settings | {"callback": where.callback, "on_failure": "ignore"}
        restored, solution = model.restore(y, operator, **settings)

        error = (restored - clean).square().flatten(1).sum(1)
        penalty = self.penalty(model.problem(y, operator), *where.point(solution), step)
        figures = {
            "error": float(error.detach().mean()),
            "psnr": float(psnr(restored.detach(), clean).mean()),
            "jacobian": float(penalty.detach()),
            "converged": float(solution.converged.float().mean()),
            "evaluations": float(solution.evaluations.cell),
            "measuring": float(measuring),
        }
        # Where the adjoint does not reach z, what is trained is the inner objective itself.
        outer = error if "z" in solution.differentiable else solution.value
        return finite_mean(outer, solution) + self.config.model.jacobian * penalty, figures

    def validate(self, model: nn.Module) -> float:
        """The squared error per pixel of images that are not trained on, restored as :meth:`evaluate` does it."""
        assert isinstance(model, LatentRestorer)
        case = self.case(self.kept, "validate")
        restored, _ = self.solved(model, case)
        return float((restored.cpu() - case.clean).square().mean())

    def solved(self, model: LatentRestorer, case: Trial) -> tuple[Tensor, jiio.Solution]:
        """The joint solve of a case, to the end, without gradients."""
        settings = self.settings | {"adjoint": jiio.Detached(), "max_steps": max(200, self.config.joint.max_steps)}
        return model.restore(case.y.to(self.device), case.operator, on_failure="ignore", **settings)

    def penalty(self, problem: jiio.Problem, z: Tree, x: Tree, step: int) -> Tensor:
        """The Jacobian penalty at constants z and x, a scalar."""
        source = generator(self.config.seed, "probe", step)
        return jacobian_penalty(problem.cell, z, x, generator=source).mean()

    def evaluate(self, model: nn.Module) -> list[Row]:
        """Ours beside the classical restorers on the test images; noiseless inpainting keeps the known pixels."""
        assert isinstance(model, LatentRestorer)
        case = self.case(self.images.test[:], "test")
        with torch.no_grad():
            rows = [
                figures(name, case.finished(image), case.clean, case.operator)
                for name, image in self.classical(case).items()
            ]
            return [*rows, self.joint(model, case)]

    def joint(self, model: LatentRestorer, case: Trial) -> Row:
        """Our row, with what the solve took."""
        begin = time.perf_counter()
        restored, solution = self.solved(model, case)
        seconds = time.perf_counter() - begin
        return figures("joint (jiio)", case.finished(restored.cpu()), case.clean, case.operator) | {
            "evaluations": float(solution.evaluations.cell),
            "VJPs": float(solution.evaluations.vjp),
            "converged": float(solution.converged.float().mean()),
            "seconds": seconds,
        }

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> LatentRestorer:
        """The decoder around its mean image, in evaluation mode; the mean comes with the weights."""
        config = check_instance("checkpoint.config", checkpoint.config, RestoreConfig)
        data = config.data
        shape = (data.channels, data.size, data.size)
        return checkpoint.network(lambda: build_restorer(config, torch.zeros(shape))).eval()

    @classmethod
    def restorer(cls, checkpoint: Checkpoint) -> AbstractRestorer:
        """The decoder as a restorer of images of its size, which knows what it was trained against."""
        config = check_instance("checkpoint.config", checkpoint.config, RestoreConfig)
        return DecoderRestorer(cls.trained(checkpoint), config.corruption, config.joint)

    def case(self, clean: Tensor, purpose: str) -> Trial:
        """Images with their corruption."""
        operator = self.draw(clean, purpose, 0)
        y = operator.measure(clean, generator(self.config.seed, "noise", purpose, 0))
        return Trial(clean, operator, y)  # type: ignore[arg-type]  (baselines are asked about linear maps only)

    def classical(self, case: Trial) -> dict[str, Tensor]:
        """The baselines by name, tuned on training images."""
        start = case.operator.start(case.y)
        named = {"start": start}
        if len(self.images.train) > 0:
            named["mean image"] = self.images.train.mean(0).expand_as(start)
            tuning = [self.case(self.images.train[:10], "tune")]
            for baseline in serving(case.operator) if isinstance(case.operator, LinearMap) else ():
                named[baseline.name] = baseline(case.y, case.operator, best(baseline, tuning))
        return named


def held_out(images: ImageSet) -> tuple[ImageSet, Tensor]:
    """The images without every tenth of the training ones, at most KEPT, and these."""
    places = torch.arange(len(images.train) - 1, -1, -10)[:KEPT]
    if len(places) == 0 or len(images.train) < 2:
        came = f"{len(images.train)} training images"
        fail("validate_every", "two training images or more", came, "Set it to 0.", ConfigError)
    train = torch.ones(len(images.train), dtype=torch.bool)
    train[places] = False
    rest = train.nonzero().flatten()
    left = images.train.subset(rest) if isinstance(images.train, OnDisk) else images.train[rest]
    return dataclasses.replace(images, train=left), images.train[places]


def build_restorer(config: RestoreConfig, mean: Tensor) -> LatentRestorer:
    """A freshly initialised decoder around a mean image (C, H, W)."""
    decoder, foresight = build(config.model.plan(config.data)), config.joint.metric_every > 0
    return LatentRestorer(decoder, mean, prior=config.model.prior, foresight=foresight)


def finite_mean(value: Tensor, solution: jiio.Solution) -> Tensor:
    """The mean of ``value`` (B,) over the samples whose solve did not break down: a training goes on without them."""
    return mean_over(value, solution.status != jiio.Status.NONFINITE)


def figures(name: str, restored: Tensor, clean: Tensor, operator: AbstractMap) -> Row:
    """One row of the table: means over the images."""
    row: Row = {"method": name, "PSNR": float(psnr(restored, clean).mean())}
    if isinstance(operator, Inpaint):
        row["PSNR in the hole"] = float(psnr(restored, clean, mask=1 - operator.mask).mean())
    row["SSIM"] = float(ssim(restored, clean).mean())
    return row
