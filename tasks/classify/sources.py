"""Training for single-source robustness: a classifier of several sources that bears noise in any one of them.

Kim and Ghosh, "On single source robustness in deep fusion models" (NeurIPS 2019). The MaxSSN loss of a batch is

    max over the sources v of  L( f(x_1, .., x_v + noise, .., x_n), y );

a training takes it and the loss of the clean batch in turn, or goes through the sources one after the other. Sources
are stretches of a sample: those of a :class:`jiio.attacks.MultiViewInjection`, or the channels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.attacks import PGD, LatentEnsemble, MultiViewThreat, Target
from jiio.attacks.threat import NORMS
from jiio.checks import ArgumentTypeError, check_choice, check_integer, check_number, fail
from jiio.draws import normal_like

from .adversarial import adversarial
from .defences import AbstractDefence, Answers, Attacked, Batch, Clean


def max_ssn(target: Target, corrupted: Sequence[Tensor], y: Tensor) -> tuple[Tensor, int]:
    """The MaxSSN loss, a scalar with the gradient of its largest term, and which source that was.

    target: the network. corrupted: the batch x (B, ...) once for each source, with that source alone corrupted. y:
    (B,), labels.
    """
    if not isinstance(corrupted, (list, tuple)) or not corrupted:
        fail("corrupted", "one batch for each source", corrupted, error=ArgumentTypeError)
    with torch.no_grad():
        losses = torch.stack([F.cross_entropy(target.forward(x)[0], y) for x in corrupted])
    worst = int(losses.argmax())
    return F.cross_entropy(target.forward(corrupted[worst])[0], y), worst


@dataclass(frozen=True)
class AbstractSourceTraining(AbstractDefence):
    """Gaussian noise in a source, clipped to [0, 1].

    sizes: numbers in each source, one after the other in a sample; empty for the channels of an image. noise: standard
    deviation.
    """

    sizes: tuple[int, ...] = ()
    noise: float = 0.5

    def __post_init__(self) -> None:
        name = f"{type(self).__name__}.sizes"
        if not isinstance(self.sizes, (tuple, list)):
            fail(name, "one whole number per source, or none", self.sizes, error=ArgumentTypeError)
        object.__setattr__(self, "sizes", tuple(check_integer(name, size, 1) for size in self.sizes))
        if len(self.sizes) == 1:
            fail(name, "two sources or more", self.sizes)
        check_number(f"{type(self).__name__}.noise", self.noise, 0.0, open_low=True)

    def sources(self, x: Tensor) -> tuple[int, ...]:
        """How many numbers each source of x (B, ...) has. Errors: ArgumentError where x has others."""
        name, n = f"{type(self).__name__}.sizes", x[0].numel()
        if self.sizes:
            if sum(self.sizes) != n:
                fail(name, f"sources of {n} numbers in all", f"{' + '.join(map(str, self.sizes))} = {sum(self.sizes)}")
            return self.sizes
        if x.dim() != 4 or x.shape[1] < 2:
            fail(name, "the sizes of the sources, where there are no channels of an image", f"a batch {tuple(x.shape)}")
        return (n // x.shape[1],) * x.shape[1]

    def corrupted(self, batch: Batch, source: int | None) -> Tensor:
        """The batch (B, ...) with noise in one of its sources; None for all of them."""
        flat, place = batch.x.flatten(1).clone(), stretch(self.sources(batch.x), source)
        draws = batch.draws(f"source {source}", batch.x.device)
        noisy = flat[:, place] + self.noise * normal_like(flat[:, place], draws)
        flat[:, place] = noisy.clamp(0.0, 1.0)
        return flat.view_as(batch.x)


def stretch(sizes: Sequence[int], source: int | None) -> slice:
    """Where a source stands in a sample; None for all of them."""
    return slice(None) if source is None else slice(sum(sizes[:source]), sum(sizes[: source + 1]))


@dataclass(frozen=True)
class MaxSSN(AbstractSourceTraining):
    """TrainSSN: the worst single source in even steps, the clean batch in odd ones."""

    def images(self, batch: Batch) -> Clean | Attacked:
        if batch.step % 2:
            return Clean()
        made = [self.corrupted(batch, source) for source in range(len(self.sources(batch.x)))]
        with torch.no_grad():
            return Attacked(made[max_ssn(batch.target, made, batch.y)[1]])


@dataclass(frozen=True)
class AlternatingSources(AbstractSourceTraining):
    """TrainSSNAlt: the clean batch and noise in each source in turn, a step for each."""

    def images(self, batch: Batch) -> Clean | Attacked:
        turn = batch.step % (len(self.sources(batch.x)) + 1)
        return Attacked(self.corrupted(batch, turn - 1)) if turn else Clean()


@dataclass(frozen=True)
class AllSources(AbstractSourceTraining):
    """Augmentation that knows nothing of sources: all of them corrupted in even steps, the clean batch in odd ones."""

    def images(self, batch: Batch) -> Clean | Attacked:
        return Clean() if batch.step % 2 else Attacked(self.corrupted(batch, None))


@dataclass(frozen=True)
class AbstractAdversarialSources(AbstractSourceTraining):
    """An adversary in the place of the noise: ``steps`` projected gradient steps in a source alone.

    noise: how far a number of the source may move, in the mean of the norm: the radius is noise times sqrt(n) in L2,
    times n in L1, for a source of n numbers. norm: of the balls. warm, tolerance: as in ``PGDTraining``, for an
    equilibrium; loose solves that go on from each other are the cheap ones.
    """

    norm: str = "l2"
    steps: int = 3
    warm: bool = True
    tolerance: float | None = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(f"{type(self).__name__}.norm", self.norm, NORMS)
        _ = self.attack

    @property
    def attack(self) -> PGD:
        """How it does it."""
        return PGD(steps=self.steps, warm=self.warm, tolerance=self.tolerance, best=False, exact=False)

    def corrupted(self, batch: Batch, source: int | None) -> Tensor:
        sizes, power = self.sources(batch.x), {"linf": 0.0, "l2": 0.5, "l1": 1.0}[self.norm]
        radii = tuple(self.noise * size**power for size in sizes)
        threat = MultiViewThreat(self.norm, radii, sizes=sizes)
        # A plain network has no solve to loosen.
        attack = self.attack if batch.target.implicit else replace(self.attack, warm=False, tolerance=None)
        return adversarial(batch, attack, threat if source is None else threat.only(source))


@dataclass(frozen=True)
class AdversarialMaxSSN(AbstractAdversarialSources, MaxSSN):
    """MaxSSN against the worst that can be done to the worst source, one attack for each source in every other step."""


@dataclass(frozen=True)
class AdversarialAllSources(AbstractAdversarialSources, AllSources):
    """Adversarial training in all sources at once: one attack in every other step, each source in its own ball."""


@dataclass(frozen=True)
class SparseSources(AbstractDefence):
    """``weight`` times the L1 norm of what mixes the sources in a :class:`jiio.attacks.LatentEnsemble`."""

    weight: float = 1e-2

    def __post_init__(self) -> None:
        check_number("SparseSources.weight", self.weight, 0.0, open_low=True)

    def term(self, batch: Batch, answers: Answers) -> Tensor:
        layers = [part for part in batch.target.model.modules() if isinstance(part, LatentEnsemble)]
        if not layers:
            remedy = 'multi_view_classifier(..., fusion="latent") has one.'
            fail("SparseSources", "a network with a LatentEnsemble", type(batch.target.model).__name__, remedy)
        return self.weight * torch.stack([layer.connections() for layer in layers]).sum()
