"""``jiio attack``: how much accuracy an adversary leaves a classifier, and whether the figure can be trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError, check_output_folder, read_bytes
from jiio.tasks.frame.options import check_seed, check_threads, chosen, declare
from jiio.tasks.frame.outputs import Outputs, of_checkpoint, of_config
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.terminal import say

if TYPE_CHECKING:
    import torch
    from torch import nn

    from jiio.attacks import AbstractAttack, Report, ThreatModel
    from jiio.tasks.frame.checkpoint import Checkpoint

    from .data import Labelled

SUITES = ("standard", "autoattack", "deq")


@dataclass(frozen=True)
class AttackOptions:
    """How a classifier is attacked, and what is written of it.

    Args:
        checkpoint: a checkpoint of a classifier, the folder of its training, or shipped weights
        norm: linf, l2 or l1 (default: that of the training's threat)
        radius: of the ball around an image with values in [0, 1] (default: as --norm)
        suite: standard, autoattack (the original one; extra attacks), or deq
        samples: only the first so many test images; 0 takes all
        batch: images that are attacked together
        curve: multiples of the radius at which the accuracy is wanted as well
        seed: of everything random
        report: write a page with curves and pictures to this .html file
        json: write all figures, sample by sample, to this file
        state: folder of the finished batches, from which a killed run goes on (default: beside --report or --json)
        overwrite: replace files that exist; what is given, never
        no_audit: leave out the checks whether the figure can be believed
        data_root: folder of the data sets (default: JIIO_DATA)
        device: cpu, cuda, cuda:0, mps (default: the training's)
        threads: CPU threads (default: the training's)
    """

    checkpoint: str
    norm: str | None = None
    radius: float | None = None
    suite: str = "standard"
    samples: int = 200
    batch: int = 100
    curve: tuple[float, ...] = ()
    seed: int = 0
    report: Path | None = None
    json: Path | None = None
    state: Path | None = None
    overwrite: bool = False
    no_audit: bool = False
    data_root: Path | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self._check_threat()
        check_choice("--suite", self.suite, SUITES)
        check_integer("--samples", self.samples, 0)
        check_integer("--batch", self.batch, 1)
        for multiple in self.curve:
            check_number("--curve", multiple, 0.0, open_low=True)
        check_seed(self.seed)
        check_threads(self.threads)

        self._check_names()

    def _check_threat(self) -> None:
        if self.norm is not None:
            check_choice("--norm", self.norm, ("linf", "l2", "l1"))
        if self.radius is not None:
            check_number("--radius", self.radius, 0.0, open_low=True)

    def _check_names(self) -> None:
        """Each kind of file is told by the end of its name, so a slip would write figures into a page."""
        if self.report is not None and self.report.suffix != ".html":
            remedy = "For figures there is --json."
            fail("--report", "a file whose name ends in .html", f"{self.report}", remedy, InputError)
        if self.json is not None and self.json.suffix == ".html":
            fail(
                "--json",
                "a name that does not end in .html",
                f"{self.json}",
                "For a page there is --report.",
                InputError,
            )

    @property
    def folder(self) -> Path | None:
        """Of the finished batches; where none is named it stands beside what is written, and goes at the end."""
        written = self.report or self.json
        return self.state or (None if written is None else written.with_name(f"{written.name}.state"))


def declare_attack(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, AttackOptions)


def run_attack(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Attack what the command line says."""
    options = chosen(AttackOptions, values)
    path = shipped("CHECKPOINT", options.checkpoint, "weights", ".safetensors")
    check_places(options, of_checkpoint(path))
    from jiio.tasks.frame.checkpoint import load

    # The pictures that the training was made of are known only with its configuration.
    checkpoint = load(path)
    check_places(options, (*of_checkpoint(path), *of_config(checkpoint.config)))
    report = attack(checkpoint, options, argv)
    print(report)
    for written in (options.report, options.json):
        if written is not None:
            report.save(written)
            say(f"Written: {written}")

    if options.folder is not None and options.state is None:
        forget(options.folder)
    return 0


def forget(folder: Path) -> None:
    """Remove the finished batches, and nothing that somebody else put beside them."""
    for kind in ("settings.json", "*.safetensors", ".jiio-lock"):
        for path in folder.glob(kind):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()


def check_places(options: AttackOptions, given: tuple[Path, ...]) -> None:
    """Refuse what must not be written to; what is wrong ends here, before anything is attacked."""
    outputs = Outputs(given, options.overwrite)
    for argument, file in (("--report", options.report), ("--json", options.json)):
        if file is not None:
            outputs.file(argument, file, lambda path: is_repeated(options, path))
    if options.folder is not None:
        check_output_folder("--state", options.folder)


def is_repeated(options: AttackOptions, path: Path) -> bool:
    """Whether a file is the report of an earlier run of this evaluation: its kept state is there (another one's would
    be refused), and the file is a report.
    """
    if options.state is None or not (options.state / "settings.json").is_file():
        return False
    try:
        text = read_bytes("report", path, "a report", 1 << 30).decode()
        return (
            "under attack</title>" in text if path.suffix == ".html" else {"robust", "threat"} <= set(json.loads(text))
        )
    except (ValueError, TypeError, RecursionError):  # InputError among them
        return False


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
        from jiio import attacks
        from jiio.tasks.frame.machine import check_device

        from .data import load_labelled
        from .task import Classify, ClassifyConfig

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


def attack(checkpoint: Checkpoint, options: AttackOptions, argv: Sequence[str]) -> Report:
    """The evaluation of the checkpoint's network on the test images of its configuration."""
    victim = Victim.of(checkpoint, options)
    name, threat, count = type(victim.model).__name__, victim.threat, len(victim.data.test)
    told = f"{options.suite}, {len(victim.suite)} attacks, {count} images"
    say(f"{name} of {checkpoint.path}: {threat.norm} radius {threat.radius:g}, {told}.")
    if options.samples > count:
        say(f"There are only {count} test images.")

    try:
        return judged(victim, options)
    except KeyboardInterrupt as stop:
        # The same line goes on, as long as the finished batches are kept somewhere.
        again = shlex.join(["jiio", *argv])
        kept = "nothing was kept, as there is no --state" if options.folder is None else f"continue by: {again}"
        raise KeyboardInterrupt(f"Interrupted; {kept}.") from stop


def judged(victim: Victim, options: AttackOptions) -> Report:
    """The report, with a line of news for every batch."""
    import torch

    from jiio import attacks
    from jiio.tasks.frame.machine import cpu_threads

    from .data import in_batches

    begin, draws = time.perf_counter(), torch.Generator().manual_seed(options.seed)
    batches = in_batches(victim.data, options.batch, victim.device)
    with cpu_threads(victim.threads):
        return attacks.evaluate(
            victim.model,
            batches,
            victim.threat,
            victim.suite,
            generator=draws,
            state_path=options.folder,
            curve=options.curve,
            audit=None if options.no_audit else attacks.Audit(),
            progress=lambda line: say(f"{line} ({time.perf_counter() - begin:.0f} s)"),
        )


def the_threat(options: AttackOptions, norm: str, radius: float) -> ThreatModel:
    """What the command line says about the adversary, filled up with the training's threat where there is one."""
    from jiio.attacks import ThreatModel

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
    import importlib.util

    from jiio.attacks import AutoAttack, JointAttack, Square, Target

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
    from jiio.attacks import Margin

    objective = getattr(one, "objective", None)
    if objective is None or objective.least_classes <= classes:
        return one
    return dataclasses.replace(one, objective=Margin())  # type: ignore[type-var]
