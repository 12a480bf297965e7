"""Classification: clean, adversarial, regularised, or any mixture, of equilibrium networks and a plain one beside them.

What makes a classifier robust stands in the list ``defence`` of the configuration (:mod:`.defences`); the task
puts the pieces together. ``jiio attack`` tells what the result is worth.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.attacks import Target, ThreatModel
from jiio.checks import JiioError, check_instance, fail
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.choices import Choice, lists_choices
from jiio.tasks.frame.config import RunConfig, WarmConfig
from jiio.tasks.frame.load import ConfigError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.task import AbstractTask, Figure

from .clock import Clock
from .data import ClassifyDataConfig, in_batches, labelled_batch, load_labelled, unlabelled_batch
from .defences import AbstractDefence, Answers, Attacked, Batch, Clean
from .measured import Row, attacked_row, clean_row
from .networks import NetworkConfig

EVALUATED = 250  # images per batch of an evaluation


@dataclass(frozen=True)
class ThreatConfig:
    """What the adversary of the evaluation may do.

    Args:
        norm: l2, linf or l1; none leaves the attack out
        radius: of the ball around an image in [0, 1]
    """

    norm: str = "none"
    radius: float = 1.0

    def __post_init__(self) -> None:
        try:
            _ = self.model()
        except JiioError as error:
            raise ConfigError(str(error).replace("ThreatModel.", "threat.")) from error

    def model(self) -> ThreatModel | None:
        """The threat, None for none."""
        return None if self.norm == "none" else ThreatModel(self.norm, self.radius)


@lists_choices
@dataclass(frozen=True)
class ClassifyConfig(RunConfig):
    """A training of a classifier.

    Args:
        data: labelled images
        model: the classifier
        defence: what makes it harder to fool, any of {defence}
        threat: what it is attacked with at the end
        warm: the beginning with a few layers, on clean images and without the defences
    """

    task: str = "classify"
    output: str = "runs/classify"
    data: ClassifyDataConfig = field(default_factory=ClassifyDataConfig)
    model: NetworkConfig = field(default_factory=NetworkConfig)
    defence: tuple[Choice, ...] = ()
    threat: ThreatConfig = field(default_factory=ThreatConfig)
    warm: WarmConfig = field(default_factory=WarmConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model.plan(self.data)
        made = self.defences()
        plain = [c.name for c, one in zip(self.defence, made, strict=True) if one.explicit]
        if self.warm.steps and (plain or not self.model.implicit):
            culprit = f"defence {plain[0]}" if plain else f"model.cell {self.model.cell.name}"
            fail("warm.steps", f"0 for {culprit}", self.warm.steps, error=ConfigError)
        if self.data.labels is not None and not any(one.uses_unlabelled for one in made):
            fail("data.labels", "a defence that learns without labels", "none", "Add DensityHead.", ConfigError)

    def defences(self) -> list[AbstractDefence]:
        """The objects that ``defence`` names."""
        made = [choice.make("defence", f"defence[{i}]") for i, choice in enumerate(self.defence)]
        for choice, defence in zip(self.defence, made, strict=True):
            if defence.needs_equilibrium and not self.model.implicit:
                raise ConfigError(
                    f"defence: {choice.name} needs an equilibrium, got model.cell {self.model.cell.name}."
                )

        # What makes layers of the equilibrium leaves nothing for others that need one.
        for i, layers in enumerate(made):
            for choice, other in zip(self.defence, made, strict=True):
                if layers.explicit and other is not layers and other.needs_equilibrium:
                    came = f"{choice.name} beside {self.defence[i].name}, which leaves none"
                    fail("defence", "an equilibrium for those that need one", came, error=ConfigError)
        return made

    def build(self) -> nn.Module:
        """A freshly initialised network, as the defences want it trained."""
        model = self.model.build(self.data)
        for defence in self.defences():
            model = defence.network(model)
        return model

    def deployed(self, model: nn.Module) -> nn.Module:
        """What is used of a trained network in the end."""
        for defence in self.defences():
            model = defence.deployed(model)
        return model


class Classify(AbstractTask):
    """The task ``classify`` of a training configuration."""

    def __init__(self, config: ClassifyConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.defences = config.defences()
        self.data = load_labelled(config.data, data_root=data_root).near(self.device)

    def model(self) -> nn.Module:
        return self.config.build()

    def examples(self) -> Tensor:
        return self.data.train_labels

    def part(self, chosen: Tensor, config: ClassifyConfig) -> Classify:
        mine = copy.copy(self)
        mine.config, mine.defences, mine.data = config, config.defences(), self.data.part(chosen)
        return mine

    @property
    def epoch(self) -> float:
        """Steps until every training image was seen once."""
        return len(self.data.train) / self.config.data.batch_size

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, Figure]]:
        """Cross-entropy of the images that the defences make, and their own terms."""
        clock = Clock()
        batch = self.batch(model, step)
        warm = step < self.config.warm.steps
        at = [] if warm else [(d, dataclasses.replace(batch, place=i)) for i, d in enumerate(self.defences)]

        # What is trained on, and how the network is solved there. A warm step knows no defence.
        made = images_of(at)
        attacked = clock.processor
        solving = layers(self.config.warm.layers) if warm else {}
        for defence, view in at:
            solving |= defence.solving(view)

        # All makers have the same weight, however many there are; the terms come on top.
        seen = batch.target.variant(**solving) if solving else batch.target
        answers = Answers.of(seen, batch.x, made)
        losses = torch.stack([F.cross_entropy(answer.logits, batch.y) for answer in answers])
        loss = losses.mean()
        for defence, view in at:
            term = defence.term(view, answers)
            loss = loss if term is None else loss + term
        return loss, self.figures(batch, answers, losses) | self.times(clock, attacked)

    def batch(self, model: nn.Module, step: int) -> Batch:
        """The images of one training step and the network that sees them."""
        seed, data = self.config.seed, self.config.data
        x, y = labelled_batch(self.data, data, seed=seed, step=step)
        more = unlabelled_batch(self.data, data, seed=seed, step=step, device=self.device)
        return Batch(Target(model), x.to(self.device), y.to(self.device), seed, step, unlabelled=more)

    def figures(self, batch: Batch, answers: Answers, losses: Tensor) -> dict[str, Figure]:
        """For the log; calls are counted when the step ends."""
        right = torch.stack([(answer.logits.argmax(1) == batch.y).float().mean() for answer in answers])
        reached = [answer.reached.converged.float().mean() for answer in answers if answer.reached is not None]
        counts = batch.target.counts
        return {
            "epoch": batch.step / self.epoch,
            "cross_entropy": float(losses.detach().mean()),
            "accuracy": float(right.mean()),
            "converged": float(torch.stack(reached).mean()) if reached else 1.0,
            "evaluations": lambda: float(counts.evaluations),
            "vjps": lambda: float(counts.vjps),
        }

    def times(self, clock: Clock, attacked: float) -> dict[str, Figure]:
        """For the log, taken when the step ends. attacked: seconds of the processor until the images were made."""
        return {
            "seconds": lambda: clock.wall,
            "epoch_seconds": lambda: clock.wall * self.epoch,
            "processor_seconds": lambda: clock.processor,
            "attack_processor_seconds": attacked,
        }

    def evaluate(self, model: nn.Module) -> list[Row]:
        """Clean accuracy, and what a quick attack leaves of it where the configuration has a threat."""
        batches = in_batches(self.data, EVALUATED, self.device)
        model = self.config.deployed(model)
        rows = [clean_row(Target(model), batches)]
        threat = self.config.threat.model()
        return rows if threat is None else [*rows, attacked_row(model, batches, threat, self.config.seed)]

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> nn.Module:
        """The network of a checkpoint as it is used in the end, in evaluation mode; no data are needed."""
        config = check_instance("checkpoint.config", checkpoint.config, ClassifyConfig)
        return config.deployed(checkpoint.network(config.build)).eval()


def images_of(at: Sequence[tuple[AbstractDefence, Batch]]) -> list[Clean | Attacked]:
    """The images of all makers in the order of the list; where there is no maker, the clean ones."""
    made: list[Clean | Attacked] = []
    for defence, view in at:
        images = defence.images(view)
        if images is not None and images not in made:  # Clean() equals Clean(); Attacked equals nothing else
            made.append(images)
    return made or [Clean()]


def layers(count: int) -> dict[str, Any]:
    """Settings of a solve that make it an ordinary network of ``count`` layers with the same weights."""
    exact = jiio.Tolerance(1e-30, 0.0)  # out of reach: every sample gets all layers
    steps = count + 1  # the last one only measures the residual of the state that is returned
    return {"solver": jiio.Picard(), "adjoint": jiio.Unrolled(), "tolerance": exact, "max_steps": steps}
