"""What ``jiio attack`` attacks: the network of a checkpoint, the threat, the attacks that fit both, the images."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from jiio import attacks
from jiio.attacks import AbstractAttack, AutoAttack, JointAttack, Margin, Square, Target, ThreatModel
from jiio.checks import fail
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.terminal import say

from .data import Labelled, load_labelled
from .options import AttackOptions
from .task import Classify, ClassifyConfig


@dataclass(frozen=True, eq=False)
class Victim:
    """What is attacked, by what, on which images. threads: of the training."""

    model: nn.Module
    threat: ThreatModel
    suite: Sequence[AbstractAttack]
    data: Labelled
    device: torch.device
    threads: int | None

    @classmethod
    def of(cls, checkpoint: Checkpoint, options: AttackOptions) -> Victim:
        """Errors: JiioError where the checkpoint holds no classifier, or suite and threat do not fit it."""
        config = checkpoint.config
        if not isinstance(config, ClassifyConfig):
            came = f"{checkpoint.path}, of the task {config.task}"
            fail("CHECKPOINT", "a classifier", came, "Train one: jiio train classify-faces.", InputError)
        threat = the_threat(options, config.threat.norm, config.threat.radius)
        device = check_device(options.device or config.device)
        model = Classify.trained(checkpoint).to(device).eval()

        # Images last: they may be many, and the suite may not fit.
        suite = fitting(attacks.SUITES[options.suite](), model, threat, config.data.classes)
        limit = None if options.samples == 0 else options.samples
        data = load_labelled(dataclasses.replace(config.data, test_limit=limit), data_root=options.data_root)
        return cls(model, threat, suite, data, device, options.threads or config.threads)


def the_threat(options: AttackOptions, norm: str, radius: float) -> ThreatModel:
    """What the command line says about the adversary, filled up with the training's threat where there is one."""
    if norm == "none" and (options.norm is None or options.radius is None):
        missing = "--norm" if options.norm is None else "--radius"
        fail(missing, "a norm and a radius, as the training had no threat", "none", error=InputError)
    if options.norm not in (None, norm) and options.radius is None:
        came = f"none, and the training's is for {norm}"
        fail("--radius", f"a radius for the norm {options.norm}", came, error=InputError)
    return ThreatModel(options.norm or norm, radius if options.radius is None else options.radius)


def fitting(
    suite: Sequence[AbstractAttack], model: nn.Module, threat: ThreatModel, classes: int
) -> list[AbstractAttack]:
    """The attacks of a suite that this model and threat allow.

    An objective that needs more classes than there are becomes the margin; random search is left out for L1, which it
    does not know.
    """
    kept: list[AbstractAttack] = []
    for one in suite:
        if isinstance(one, JointAttack) and not Target(model).implicit:
            came = f"a {type(model).__name__}"
            fail("--suite", "an equilibrium model for deq", came, "Take standard or autoattack.", InputError)
        if isinstance(one, AutoAttack) and importlib.util.find_spec("pyautoattack") is None:
            remedy = 'Install the extra: pip install "jiio[attacks]".'
            fail("--suite", "the package pyautoattack for autoattack", "no such package", remedy, InputError)
        if isinstance(one, Square) and threat.norm == "l1":
            say("Square knows no L1 ball, so it is left out.")
            continue

        # Two attacks may have become the same by now, as with two classes there is only one other.
        one = with_enough(one, classes)
        if all(one.name != other.name for other in kept):
            kept.append(one)
    return kept


def with_enough(one: AbstractAttack, classes: int) -> AbstractAttack:
    """The attack with an objective that there are enough classes for."""
    objective = getattr(one, "objective", None)
    if objective is None or objective.least_classes <= classes:
        return one
    return dataclasses.replace(one, objective=Margin())  # type: ignore[type-var]
