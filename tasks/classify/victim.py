"""What ``jiio attack`` attacks: a model, the threat, the attacks that fit both, the images."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jiio import attacks
from jiio.attacks import AbstractAttack, Target, ThreatModel
from jiio.attacks.evaluation.asked import classes
from jiio.attacks.suites import fitted, suite
from jiio.checks import JiioError, check_choice, fail
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.terminal import say

from .data import load_labelled
from .given import given_model
from .layouts import Pictures, read
from .options import AttackOptions, ImageOptions, ModelOptions, OwnModel
from .task import Classify, ClassifyConfig
from .words import mapping

OBJECTIVES = ("CrossEntropy", "Margin", "DLR", "TargetedCrossEntropy", "TargetedMargin", "TargetedDLR")
Asked = tuple[ModelOptions, ImageOptions, AttackOptions]


class Chosen(NamedTuple):
    """The attacks of a suite, the ones named singly, and the name of the suite."""

    suite: list[AbstractAttack]
    single: list[AbstractAttack]
    name: str

    @property
    def all(self) -> list[AbstractAttack]:
        """In one list."""
        return [*self.suite, *self.single]

    @property
    def told(self) -> str:
        """In words."""
        return " and ".join(([self.name] if self.name else []) + [one.name for one in self.single])


@dataclass(frozen=True, eq=False)
class Victim:
    """What is attacked, by what, on which images. name, data: in the words of the command line. threads: of the
    training.
    """

    name: str
    target: Target
    threat: ThreatModel
    attacks: Chosen
    pictures: Pictures
    data: str
    threads: int | None

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str, asked: Asked) -> Victim:
        """The network of a training, by default on its test images and under its threat. name: as it was typed.

        Errors: JiioError where the checkpoint holds no classifier, or suite and threat do not fit it.
        """
        (models, images, options), config = asked, checkpoint.config
        if not isinstance(config, ClassifyConfig):
            came = f"{checkpoint.path}, of the task {config.task}"
            fail("CHECKPOINT", "a classifier", came, "Train one: jiio train classify-faces.", InputError)
        threat = the_threat(options, images, config.threat.norm, config.threat.radius)
        target = on_device(Classify.trained(checkpoint), models, options, config.device)
        chosen = the_attacks(options, target)

        # Images last: they may be many, and the suite may not fit.
        if images.data is None:
            data = dataclasses.replace(config.data, test_limit=images.limit)
            found, told = load_labelled(data, data_root=images.data_root), f"{config.data.family}, test images"
            pictures = Pictures(found.test, found.test_labels)
        else:
            pictures, told = read(images), images.data
        threads = options.threads or config.threads
        return cls(name, target, threat, chosen, pictures, told, threads).checked()

    @classmethod
    def of_model(cls, own: OwnModel, asked: Asked) -> Victim:
        """Somebody's own model, on their own images."""
        models, images, options = asked
        if images.data is None:
            remedy = "It is folder:PATH, npz:FILE or torchvision:NAME."
            fail("--data", "the images to attack, as --model brings none", "none", remedy, InputError)
        threat = the_threat(options, images, "none", 0.0)
        target = on_device(given_model(own), models, options, "cpu")
        chosen = the_attacks(options, target)

        pictures = read(images)
        return cls(own.name, target, threat, chosen, pictures, images.data, options.threads).checked()

    def checked(self) -> Victim:
        """The victim, of which one image went through: what does not fit together is said before anything runs."""
        place = next((p.device for p in self.target.model.parameters()), torch.device("cpu"))
        x, y = (part[:1].to(place) for part in self.batches(len(self.pictures.images))[0])
        self.threat.check(self.pictures.images)
        self.target.check(x, y, self.threat)
        count = self.scores(x)
        labels = self.pictures.labels
        if int(labels.min()) < 0 or int(labels.max()) >= count:
            came = f"labels from {int(labels.min())} to {int(labels.max())}"
            fail("--data", f"labels from 0 to {count - 1}, one per score of the model", came, error=InputError)

        # What a person chose is used as it is or refused; a suite is fitted.
        for one in self.attacks.single:
            one.fits(self.target, x, self.threat)
        kept, lost = fitted(self.attacks.suite, self.target, self.threat, count)
        for name in lost:
            say(f"{name} knows no {self.threat.norm} ball, so it is left out.")
        return dataclasses.replace(self, attacks=Chosen(kept, self.attacks.single, self.attacks.name))

    def scores(self, x: Tensor) -> int:
        """How many scores the model has for one image."""
        try:
            return classes(self.target, (x, x))
        except JiioError:
            raise
        except Exception as error:  # somebody else's model, with images of another shape
            came = f"{tuple(x.shape)}, for which it raised {type(error).__name__}: {str(error).splitlines()[0][:150]}"
            remedy = "--size, --channels and --bounds say how they are read."
            fail("--data", f"images that {self.name} takes", came, remedy, InputError)

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """The images in order, in parts of at most ``size``, in the precision of the model."""
        parts = zip(self.pictures.images.split(size), self.pictures.labels.split(size), strict=True)
        weight = next((p for p in self.target.model.parameters() if p.is_floating_point()), None)
        return [(x.to(x.dtype if weight is None else weight.dtype), y) for x, y in parts]


def check_alike(victims: list[Victim], options: AttackOptions) -> list[Victim]:
    """The victims, where one table can hold them: the same threat and the same images, or at least the same labels."""
    first = victims[0]
    if len(victims) > 1 and options.save is not None:
        fail("--save", "one model, as the images are found for one", f"{len(victims)} models", error=InputError)
    if len(victims) > 1 and options.part is not None:
        fail("--shard", "one model", f"{len(victims)} models", error=InputError)

    for other in victims[1:]:
        if other.threat.describe() != first.threat.describe():
            remedy = "Say one for all: --norm linf --radius 8/255."
            fail("--norm", "one threat for all models", f"another one for {other.name}", remedy, InputError)
        if not torch.equal(other.pictures.labels, first.pictures.labels):
            remedy = "Say some for all by --data."
            fail("--data", "the same images for all models", f"other ones for {other.name}", remedy, InputError)
    return victims


def on_device(model: nn.Module, models: ModelOptions, options: AttackOptions, default: str) -> Target:
    """The model where it is to run, behind the normalisation that it wants. Of torchrun each has its own GPU."""
    mean, std = (torch.tensor(models.moments[key]) if key in models.moments else None for key in ("mean", "std"))
    return Target(model.to(check_device(options.device or default)).eval(), mean=mean, std=std)


def the_threat(options: AttackOptions, images: ImageOptions, norm: str, radius: float) -> ThreatModel:
    """What the command line says about the adversary, filled up with the training's threat where there is one."""
    if norm == "none" and (options.norm is None or options.radius is None):
        missing = "--norm" if options.norm is None else "--radius"
        remedy = "For example --norm linf --radius 8/255."
        fail(missing, "a norm and a radius, as no training says them", "none", remedy, InputError)
    bounds = images.box or (0.0, 1.0)
    asked = ThreatModel(options.norm or norm, radius if options.reach is None else options.reach, bounds)
    if asked.norm != norm and options.reach is None:
        came = f"none, and the training's is for {norm}"
        fail("--radius", f"a radius for the norm {asked.norm}", came, error=InputError)
    return asked


def the_attacks(options: AttackOptions, target: Target) -> Chosen:
    """What ``--suite`` and ``--attack`` name; the standard suite where they name nothing."""
    name = options.suite or ("" if options.attack else "standard")
    single = [made(words) for words in options.attack]
    if name == "autoattack" and importlib.util.find_spec("pyautoattack") is None:
        remedy = 'Install the extra: pip install "jiio[attacks]".'
        fail("--suite", "the package pyautoattack for autoattack", "no such package", remedy, InputError)
    return Chosen(suite(name, target, "--suite") if name else [], single, name)


def made(words: Sequence[str]) -> AbstractAttack:
    """The attack that ``--attack NAME '{options}'`` names; its objective is named by a word."""
    given = mapping(f"--attack {words[0]}", words[1]) if len(words) == 2 else {}
    word = given.pop("objective", None)
    one = Choice(words[0], given).make("attack", "--attack")

    if word is None:
        return one
    if not hasattr(one, "objective"):
        fail("--attack", f"an attack with an objective for {word!r}", words[0], error=InputError)
    check_choice("--attack objective", word, OBJECTIVES)
    return dataclasses.replace(one, objective=getattr(attacks, word)())
