"""The options of ``jiio attack``: what is attacked, on which images, how, and what is written of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jiio.attacks import SUITE_NAMES
from jiio.attacks.evaluation.shards import Shard
from jiio.attacks.spelling import spelt
from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, check_threads, named, words

from .words import mapping, number, numbers

NORMS = ("linf", "l2", "l1")
NOTHING = "-"  # in the place of a file or of arguments


class OwnModel(NamedTuple):
    """A model as the command line names it. arguments: of the class or function that makes it. name: in reports."""

    word: str
    weights: Path | None
    arguments: dict[str, object]
    name: str

    @property
    def files(self) -> tuple[Path, ...]:
        """That may be among what it is made of."""
        return tuple(path for path in (self.weights, Path(self.word)) if path is not None)


@dataclass(frozen=True)
class ModelOptions:
    """The classifiers.

    Args:
        checkpoint: checkpoints of classifiers, folders of their trainings, or shipped weights; several are compared
        model: of your own, as package.module:Name (a class, a function that makes one, or the model itself), or a file
            (TorchScript, torch.export, jiio.models.save); several are compared
        model_options: arguments of the class or function, as '{"name": value}'; of several models one each, - for none
        weights: state dict for --model, .safetensors or .pt (read with weights_only); of several models one each, -
            for none
        mean: what the model wants subtracted, one number or one per channel
        std: what it wants divided by, one number or one per channel
    """

    checkpoint: tuple[str, ...] = words()
    model: tuple[str, ...] = ()
    model_options: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.checkpoint) == bool(self.model):
            came = "both" if self.model else "neither"
            fail("CHECKPOINT", "a checkpoint of a classifier or --model package.module:Name", came, error=InputError)
        for argument, value in (("--model-options", self.model_options), ("--weights", self.weights)):
            if value and not self.model:
                fail(argument, "a --model to use it for", "a checkpoint, which has its own", error=InputError)
            if value and len(value) != len(self.model):
                expected = f"one for each --model ({len(self.model)} of them), {NOTHING} for none"
                fail(argument, expected, f"{len(value)}", error=InputError)
        _ = self.own, self.moments

    @property
    def own(self) -> tuple[OwnModel, ...]:
        """The models of one's own."""
        nothing = [NOTHING] * len(self.model)
        given = zip(self.model, self.weights or nothing, self.model_options or nothing, strict=True)
        found = []
        for word, weights, arguments in given:
            file = None if weights == NOTHING else named("--weights", weights)
            options = {} if arguments == NOTHING else mapping("--model-options", arguments)

            # One class with several weights or arguments is told apart by these.
            others = " ".join(part for part in (weights, arguments) if part != NOTHING)
            name = f"{word} {others}".rstrip() if self.model.count(word) > 1 else word
            found.append(OwnModel(word, file, options, name))
        return tuple(found)

    @property
    def moments(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation, as far as they are given."""
        given = (("mean", self.mean), ("std", self.std))
        found = {name: numbers(f"--{name}", value) for name, value in given if value}
        for each in found.get("std", ()):
            check_number("--std", each, 0.0, open_low=True)
        return found


@dataclass(frozen=True)
class ImageOptions:
    """The images.

    Args:
        data: folder:PATH (a folder of images for each class), npz:FILE (images and labels, or x and y),
            torchvision:CIFAR10 (needs the extra vision; default: those of the checkpoint's configuration)
        size: height and width that images of folder: or torchvision: are brought to
        channels: 1 (grey) or 3 (colour), for images of a folder
        bounds: of valid inputs, low and high, in the units of the model (default: 0 1, to which 8-bit images are
            brought)
        samples: only the first so many test images; 0 takes all
        batch: images that are attacked together
        data_root: folder of the data sets (default: JIIO_DATA)
    """

    data: str | None = None
    size: int | None = None
    channels: int | None = None
    bounds: tuple[str, ...] = ()
    samples: int = 200
    batch: int = 100
    data_root: Path | None = None

    def __post_init__(self) -> None:
        check_integer("--samples", self.samples, 0)
        check_integer("--batch", self.batch, 1)
        if self.size is not None:
            check_integer("--size", self.size, 1)
        if self.channels not in (None, 1, 3):
            fail("--channels", "1 or 3", self.channels, error=InputError)
        self._check_used("--size", self.size, ("folder", "torchvision"))
        self._check_used("--channels", self.channels, ("folder",))
        if self.box is not None and not self.box[0] < self.box[1]:
            fail("--bounds", "two numbers, the lower one first", " ".join(self.bounds), error=InputError)

    def _check_used(self, option: str, value: int | None, kinds: tuple[str, ...]) -> None:
        """Raise where an option would change nothing about these images."""
        if value is not None and (self.data or "").partition(":")[0] not in kinds:
            wanted = " or ".join(f"{kind}:" for kind in kinds)
            fail(option, f"images of {wanted} to bring to it", f"--data {self.data or '(none)'}", error=InputError)

    @property
    def box(self) -> tuple[float, float] | None:
        """The bounds, where they are given."""
        if not self.bounds:
            return None
        low, high = numbers("--bounds", self.bounds, 2)
        return low, high

    @property
    def path(self) -> Path | None:
        """Of the file or folder that holds the images."""
        kind, _, rest = (self.data or "").partition(":")
        return Path(rest) if kind in ("folder", "npz") and rest else None

    @property
    def limit(self) -> int | None:
        """How many images at most."""
        return None if self.samples == 0 else self.samples


@dataclass(frozen=True)
class AttackOptions:
    """How it is attacked, and what is written of it.

    Args:
        norm: linf, l2 or l1 (default: that of the training's threat)
        radius: of the ball around an image, such as 0.5 or 8/255 (default: as --norm)
        suite: standard, autoattack (the original one; extra attacks), or deq (default: standard without --attack)
        attack: an attack by name or package.module:Name, and its settings as '{"steps": 50}'; may be repeated
        corruptions: instead of attacks, the error under common corruptions: all, or names of families such as fog
        baseline: report of another model under them, written by --json, against which the mCE is counted
        curve: multiples of the radius at which the accuracy is wanted as well
        seed: of everything random
        report: write a page with curves and pictures to this .html file
        json: write all figures, sample by sample, to this file
        save: write the adversarial images, labels and predictions to this .npz file
        state: folder of the finished batches, from which a killed run goes on (default: beside what is written)
        shard: I/N, do only part I (from 1) of N that share --state; the last one writes the report (default: what
            torchrun says)
        overwrite: replace files that exist; what is given, never
        no_audit: leave out the checks whether the figure can be believed
        device: cpu, cuda, cuda:0, auto (a GPU where there is one) (default: the training's)
        threads: CPU threads (default: the training's)
    """

    norm: str | None = None
    radius: str | None = None
    suite: str | None = None
    attack: tuple[tuple[str, ...], ...] = ()
    corruptions: tuple[str, ...] = ()
    baseline: Path | None = None
    curve: tuple[float, ...] = ()
    seed: int = 0
    report: Path | None = None
    json: Path | None = None
    save: Path | None = None
    state: Path | None = None
    shard: str | None = None
    overwrite: bool = False
    no_audit: bool = False
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.norm is not None:
            check_choice("--norm", spelt(self.norm), NORMS)
        if self.reach is not None:
            check_number("--radius", self.reach, 0.0, open_low=True)
        self._check_attacks()
        for multiple in self.curve:
            check_number("--curve", multiple, 0.0, open_low=True)
        check_seed(self.seed)
        check_threads(self.threads)
        self._check_names()
        self._check_corruptions()
        if self.part is not None and self.state is None:
            fail("--state", "a folder that all parts share", "none", error=InputError)

    def _check_attacks(self) -> None:
        if self.suite is not None:
            check_choice("--suite", self.suite, SUITE_NAMES)
        for one in self.attack:
            if len(one) > 2:
                remedy = "Put the settings into one word, between quotes; a checkpoint goes before the options."
                fail("--attack", "a name and its settings", " ".join(one), remedy, InputError)
            if len(one) == 2:
                mapping(f"--attack {one[0]}", one[1])

    def _check_corruptions(self) -> None:
        """What belongs to attacks would change nothing about corruptions."""
        if not self.corruptions:
            if self.baseline is not None:
                fail("--baseline", "--corruptions to count against it", "none", error=InputError)
            return
        for name in ("norm", "radius", "suite", "attack", "curve", "save", "state", "shard", "no_audit"):
            if getattr(self, name):
                argument = f"--{name.replace('_', '-')}"
                fail(
                    argument, "nothing of attacks beside --corruptions", "both", "Run one after the other.", InputError
                )

    @property
    def families(self) -> tuple[str, ...] | None:
        """Of corruptions; None for all."""
        return None if self.corruptions == ("all",) else self.corruptions

    def _check_names(self) -> None:
        """Each kind of file is told by the end of its name, so a slip would write figures into a page."""
        for argument, path, end in (("--report", self.report, ".html"), ("--save", self.save, ".npz")):
            if path is not None and path.suffix != end:
                fail(argument, f"a file whose name ends in {end}", f"{path}", "Figures go to --json.", InputError)
        if self.json is not None and self.json.suffix in (".html", ".npz"):
            came, remedy = f"{self.json}", "A page goes to --report, images go to --save."
            fail("--json", f"a name that does not end in {self.json.suffix}", came, remedy, InputError)

    @property
    def reach(self) -> float | None:
        """The radius as a number."""
        return None if self.radius is None else number("--radius", self.radius)

    @property
    def part(self) -> Shard | None:
        """Of the work, where there are several processes."""
        return Shard.of_environment() if self.shard is None else Shard.of_word("--shard", self.shard)

    @property
    def written(self) -> tuple[tuple[str, Path], ...]:
        """The files that are asked for, each under its option."""
        named = (("--report", self.report), ("--json", self.json), ("--save", self.save))
        return tuple((argument, path) for argument, path in named if path is not None)

    @property
    def folder(self) -> Path | None:
        """Of the finished batches; where none is named it stands beside what is written, and goes at the end."""
        beside = next((path for _, path in self.written), None)
        return self.state or (None if beside is None else beside.with_name(f"{beside.name}.state"))
