"""Learning to learn: adaptation to a few labelled images is a joint solve over a task variable.

An episode has N classes with K support images each. The features of an image are the equilibrium of one small cell,

    z_i = f(z_i, (1 + gamma(x)) * s(image_i) + beta(x)),       s: a convolutional stem,

modulated feature by feature by the task variable x (FiLM, Perez et al. 2018). Classes are told apart by distance to
their prototypes c_k, the mean features of the support images (Snell, Swersky, Zemel 2017). Adaptation minimises

    sum_i cross-entropy(-scale |z_i - c|^2, label_i) + prior |x|^2

over x, where for K > 1 an image does not count towards its own prototype; all support images of a task make one state.
The outer loss is the cross-entropy of the query images, through x*, through the prototypes, and through the equilibria
of the queries. With ``Joint`` adaptation its gradient is exact (KKT adjoint). After JIIO's Omniglot experiment
(Gurumurthy et al. 2021), with a metric head in place of its linear one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.checks import check_instance, fail
from jiio.outputs.seeds import generator
from jiio.tasks.frame import drawings
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import RunConfig, whole
from jiio.tasks.frame.dealing import dealt
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.task import AbstractTask

from .adaptation import AbstractAdaptation
from .episodes import EpisodeConfig, Episodes, episodes, load_classes
from .learner import QUERY, FewShotLearner, LearnerConfig

Row = dict[str, str | float]
BATCH = 20  # test episodes at a time


@dataclass(frozen=True)
class MetaTestConfig:
    """How a learner is measured, on the test classes.

    Args:
        tasks: number of episodes
        ways: classes in an episode, one number for each row of the table
        shots: labelled images of each class, one number for each row
        queries: images of each class that are measured
    """

    tasks: int = 600
    ways: tuple[int, ...] = (5, 5, 20)
    shots: tuple[int, ...] = (1, 5, 1)
    queries: int = 5

    def __post_init__(self) -> None:
        whole("test.tasks", self.tasks, 2, 100_000)
        whole("test.queries", self.queries, 1, 1000)
        if len(self.ways) != len(self.shots) or not self.ways:
            fail("test.shots", f"as many numbers as test.ways ({len(self.ways)}), at least one", f"{len(self.shots)}")
        for name in ("ways", "shots"):
            for number in getattr(self, name):
                whole(f"test.{name}", number, 2 if name == "ways" else 1, 1000)


@dataclass(frozen=True)
class MetaConfig(RunConfig):
    """A training of a few-shot learner.

    Args:
        data: episodes
        model: the network that adapts
        adaptation: how a learner adapts, the joint solve or one of the others of docs/meta.md
        test: how the learner is measured
    """

    MEASURED: ClassVar = ("data", "adaptation", "test")

    task: str = "meta"
    output: str = "runs/meta"
    data: EpisodeConfig = field(default_factory=EpisodeConfig)
    model: LearnerConfig = field(default_factory=LearnerConfig)
    adaptation: Choice = Choice("Joint")
    test: MetaTestConfig = field(default_factory=MetaTestConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adaptation.make("adaptation", "adaptation")


def learner(config: MetaConfig) -> FewShotLearner:
    """A freshly initialised learner for the images of a configuration."""
    return FewShotLearner(config.model, channels=config.data.channels, size=config.data.size)


class Meta(AbstractTask):
    """The task ``meta`` of a training configuration."""

    PICTURES = ("episode.png",)

    def __init__(self, config: MetaConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.adaptation: AbstractAdaptation = config.adaptation.make("adaptation", "adaptation")
        self.train, self.test = load_classes(config.data, data_root=data_root)
        self.train.check(config.data.ways, config.data.shots + config.data.queries, "data, training classes")
        for ways, shots in zip(config.test.ways, config.test.shots, strict=True):
            self.test.check(ways, shots + config.test.queries, "test")

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> nn.Module:
        config = check_instance("checkpoint.config", checkpoint.config, MetaConfig)
        return checkpoint.network(lambda: learner(config)).eval().requires_grad_(False)

    def model(self) -> nn.Module:
        return learner(self.config)

    def outer(self, model: FewShotLearner, batch: Episodes) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of the queries after adaptation."""
        support, query = model.images(batch.support), model.images(batch.query)
        adapted = self.adaptation.adapt(model.problem(support, batch.ways), model.start(len(batch.support)))
        scores = model.classify(adapted.z, adapted.x, query, batch.ways)
        labels = batch.labels(batch.query)
        loss = F.cross_entropy(scores.transpose(1, 2), labels.expand(len(scores), -1))
        return loss, {
            "accuracy": float((scores.argmax(2) == labels).float().mean()),
            "inner": float(adapted.value.detach().mean()),
            "converged": float(adapted.converged.float().mean()),
            "calls": float(adapted.calls.float().mean()),
            "task": float(adapted.x.detach().norm(dim=1).mean()),
        }

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, FewShotLearner)
        data, seed = self.config.data, self.config.seed
        batch = episodes(
            self.train, data, seed=seed, purpose="train", number=step, tasks=data.batch_size, turn=data.turn
        )
        return self.outer(model, batch.to(self.device))

    def evaluate(self, model: nn.Module) -> list[Row]:
        """For every size of task: adapted, not adapted (x = 0), and the nearest support image in pixels."""
        assert isinstance(model, FewShotLearner)
        rows: list[Row] = []
        for ways, shots in zip(self.config.test.ways, self.config.test.shots, strict=True):
            for name, right, calls in measure(self, model, ways, shots):
                half = 1.96 * float(right.std()) / math.sqrt(len(right))
                row: Row = {"task": f"{ways}-way {shots}-shot", "method": name, "accuracy": 100 * float(right.mean())}
                rows.append(row | {"+-": 100 * half, "tasks": float(len(right)), "evaluations + VJPs": calls})
        return rows

    @torch.no_grad()
    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """Test episodes: the support images of each class, and the queries that were taken for it."""
        assert isinstance(model, FewShotLearner)
        source = generator(self.config.seed, "pictures")
        batch = self.test.draw(1, ways=5, shots=1, queries=5, source=source).to(self.device)
        support, query = model.images(batch.support), model.images(batch.query)
        adapted = self.adaptation.adapt(model.problem(support, 5), model.start(1))
        taken = model.classify(adapted.z, adapted.x, query, 5)[0].argmax(1)

        # A row for each class: its image, a gap, and the queries; blanks make all rows as long as the longest.
        blank = torch.ones_like(batch.query[0, :1])
        most = int(taken.bincount(minlength=5).max())
        rows = {}
        for k in range(5):
            mine = batch.query[0, taken == k]
            parts = [batch.support[0, k : k + 1], blank, mine, *[blank] * (most - len(mine))]
            rows[f"class {k + 1}"] = torch.cat(parts)
        return {"episode.png": drawings.sheet(rows, scale=2)}


@torch.no_grad()
def measure(task: Meta, model: FewShotLearner, ways: int, shots: int) -> list[tuple[str, Tensor, float]]:
    """(method, accuracy of each test task (T,), mean evaluations plus VJPs of an adaptation)."""
    test, source = task.config.test, generator(task.config.seed, "test", ways, shots)

    # One source over all parts: the episodes do not depend on how many fit into a batch.
    counts = (min(BATCH, test.tasks - done) for done in range(0, test.tasks, BATCH))
    drawn = (task.test.draw(n, ways=ways, shots=shots, queries=test.queries, source=source) for n in counts)

    def judged(batch: Episodes) -> tuple[dict[str, Tensor], Tensor]:
        labels = batch.labels(batch.query)
        guesses, spent = guessed(task, model, batch.to(task.device), shots)
        return {name: (guess.cpu() == labels).float().mean(1) for name, guess in guesses.items()}, spent.cpu()

    # Only adapting costs anything beyond the features, which every method but the last needs.
    right, calls = zip(*dealt(drawn, judged), strict=True)
    cost = {task.config.adaptation.name: float(torch.cat(calls).mean())}
    return [(name, torch.cat([part[name] for part in right]), cost.get(name, 0.0)) for name in right[0]]


def guessed(task: Meta, model: FewShotLearner, batch: Episodes, shots: int) -> tuple[dict[str, Tensor], Tensor]:
    """method -> the class (B, M) of each query, and what adapting took, evaluations plus VJPs (B,)."""
    support, query = model.images(batch.support), model.images(batch.query)
    plain = model.start(len(batch.support))
    adapted = task.adaptation.adapt(model.problem(support, batch.ways), plain)
    features = jiio.equilibrium(support, plain, **QUERY.arguments()).z
    distance = torch.cdist(batch.query.flatten(2), batch.support.flatten(2))
    guesses = {
        task.config.adaptation.name: model.classify(adapted.z, adapted.x, query, batch.ways).argmax(2),
        "not adapted": model.classify(features, plain, query, batch.ways).argmax(2),
        "nearest image": distance.argmin(2) // shots,
    }
    return guesses, adapted.calls.float()
