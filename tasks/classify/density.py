"""A head that says at once which class an equilibrium's features belong to and how likely they are at all.

The head maps the state to a few features f, and an invertible network T (of the package zuko, extra ``density``) maps
those to u = T(f), where every class is a Gaussian of width one around a mean of its own:

    score of class y    log p(f, y) = log N(T(f); m_y, 1) + log |det dT/df| - log (number of classes)

so the softmax of the scores is p(y | f), and their log-sum-exp is the exact log p(f). It is the hybrid of Nalisnick,
Matsukawa, Teh, Gorur, Lakshminarayanan ("Hybrid models with deep and invertible features", 2019) with a Gaussian for
each class (Izmailov, Kirichenko, Finzi, Wilson, 2020). What is exact is the density of the *features*: images that the
state maps to the same features have the same.

The density teaches T and the means. Its gradient ends at the features unless ``through`` is said: these are not
invertible functions of the image, so they become likelier by moving together, which tells nobody anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import check_instance, check_integer, check_number, fail
from jiio.layout import Tree
from jiio.models import ClassifierHead
from jiio.persample import SampleBySample
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError

from .defences import AbstractDefence, Answers, Batch

APART = 2.0  # standard deviation of the means at the beginning, in widths of a class


def has_zuko() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("zuko") is not None


def invertible(width: int, transforms: int, hidden: int) -> nn.Module:
    """zuko's lazy transform of vectors (width,): coupling layers, each of a network with two hidden layers.

    Errors: ConfigError where zuko is not installed.
    """
    if not has_zuko():
        fail("zuko", "the package", "no such package", "Install jiio[density].", ConfigError)
    flows = importlib.import_module("zuko.flows")
    made = flows.MAF(width, transforms=transforms, passes=2, hidden_features=(hidden, hidden)).transform

    # Orders and masks follow from the sizes. A checkpoint that brought others would make the density a false one.
    for part in made.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, buffer, persistent=False)
    return made


class HybridHead(SampleBySample, nn.Module):
    """State -> (B, classes), log p(features, class); their log-sum-exp is log p(features).

    inner: from the state to the features (B, width). width: of the features. classes: how many. transforms, hidden: of
    the invertible network.
    """

    def __init__(self, inner: nn.Module, width: int, classes: int, *, transforms: int = 3, hidden: int = 64) -> None:
        super().__init__()
        whole("width", width, 2, 10_000)
        check_integer("classes", classes, 1)
        whole("transforms", transforms, 1, 100)
        whole("hidden", hidden, 1, 100_000)
        self.inner = check_instance("inner", inner, nn.Module)
        self.transform = invertible(width, transforms, hidden)
        self.means = nn.Parameter(APART * torch.randn(classes, width))

    @classmethod
    def instead_of(cls, head: ClassifierHead, width: int, **sizes: int) -> HybridHead:
        """In the place of an equilibrium's head: of what its last layer sees, or of ``width`` numbers made of that."""
        last = head.linear
        made = cls(head, width or last.in_features, last.out_features, **sizes)
        head.add_module("linear", nn.Linear(last.in_features, width) if width else nn.Identity())
        return made.to(last.weight)

    def scores(self, features: Tensor) -> Tensor:
        """(B, classes) log p(features, class) of features (B, width)."""
        u, volume = self.transform().call_and_ladj(features)
        classes, width = self.means.shape
        distance = (u[:, None] - self.means).square().sum(2)
        constant = 0.5 * width * math.log(2 * math.pi) + math.log(classes)
        return volume[:, None] - 0.5 * distance - constant

    def log_density(self, features: Tensor) -> Tensor:
        """(B,) log p of features (B, width)."""
        return self.scores(features).logsumexp(1)

    def forward(self, z: Tree) -> Tensor:
        return self.scores(self.inner(z))


@dataclass(frozen=True)
class DensityHead(AbstractDefence):
    """A :class:`HybridHead` in the place of the classifier's, and ``weight`` times minus log p of a feature, on
    average, as a term of the loss; of images without a label too, where ``data.labels`` leaves any.

    width: of the features; 0 for all that the linear layer would see, a dense state itself. transforms, hidden: of the
    invertible network. through: whether the term's gradient shapes the features as well.
    """

    needs_equilibrium = True

    weight: float = 0.3
    width: int = 0
    transforms: int = 3
    hidden: int = 64
    through: bool = False

    def __post_init__(self) -> None:
        check_number("DensityHead.weight", self.weight, 0.0)
        whole("DensityHead.width", self.width, 0, 10_000)
        whole("DensityHead.transforms", self.transforms, 1, 100)
        whole("DensityHead.hidden", self.hidden, 1, 100_000)
        check_instance("DensityHead.through", self.through, bool)

    @property
    def uses_unlabelled(self) -> bool:
        return self.weight > 0

    def network(self, model: nn.Module) -> nn.Module:
        check_instance("model", model, jiio.EquilibriumModel)
        assert isinstance(model, jiio.EquilibriumModel)
        remedy = "Put DensityHead before the other defences that change the head."
        head = check_instance("model.head", model.head, ClassifierHead, remedy)
        model.head = HybridHead.instead_of(head, self.width, transforms=self.transforms, hidden=self.hidden)
        model.config = None  # it is not what ``build`` makes of the configuration any more
        return model

    def term(self, batch: Batch, answers: Answers) -> Tensor | None:
        if self.weight == 0:
            return None
        model = batch.target.equilibrium
        head = check_instance("model.head", model.head, HybridHead)
        if self.through:
            told = [answer.logits.logsumexp(1) for answer in answers]
        else:
            told = [self.apart(head, answer.reached.state) for answer in answers if answer.reached is not None]
        if batch.unlabelled is not None:
            told.append(self.unlabelled(batch, model, head))
        return -self.weight * torch.stack([part.mean() for part in told]).mean() / head.means.shape[1]

    def apart(self, head: HybridHead, z: Tree) -> Tensor:
        """(B,) the log density of the features of a state, which teaches what comes after them alone."""
        return head.log_density(head.inner(z).detach())

    def unlabelled(self, batch: Batch, model: jiio.EquilibriumModel, head: HybridHead) -> Tensor:
        """(B,) the log density of the features of the images without a label."""
        assert batch.unlabelled is not None
        with torch.set_grad_enabled(self.through and torch.is_grad_enabled()):
            solution = model.solve(batch.target.normalised(batch.unlabelled))
        batch.target.counts.record(solution.evaluations)
        return head.log_density(head.inner(solution.z)) if self.through else self.apart(head, solution.z)
