"""``jiio attack``: how much accuracy an adversary leaves a classifier, and whether the figure can be trusted."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

if TYPE_CHECKING:
    from torch import nn

    from jiio.attacks import AbstractAttack, Report, ThreatModel
    from jiio.tasks.frame.checkpoint import Checkpoint

SUITES = ("standard", "autoattack", "deq")
SAMPLES, BATCH = 200, 100


def declare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments."""
    add: Callable[..., Any] = parser.add_argument
    add("checkpoint", type=str, help="a checkpoint of a classifier, the folder of its training, or shipped weights")
    add("--norm", type=str, help="linf, l2 or l1 (default: that of the training's threat)")
    add("--radius", type=float, help="of the ball around an image with values in [0, 1] (default: as --norm)")
    add("--suite", type=str, help="standard (default), autoattack (the original one; extra attacks), or deq")
    add("--samples", type=int, help=f"only the first so many test images (default: {SAMPLES}; 0 takes all)")
    add("--batch", type=int, help=f"images that are attacked together (default: {BATCH})")
    add("--curve", type=float, nargs="+", help="multiples of the radius at which the accuracy is wanted as well")
    add("--seed", type=int, help="of everything random (default: 0)")
    add("--report", type=str, help="write a page with curves and pictures to this .html file")
    add("--json", type=str, help="write all figures, sample by sample, to this file")
    state = "folder of the finished batches, from which a killed run goes on (default: beside --report or --json)"
    add("--state", type=str, help=state)
    add("--no-audit", action="store_true", help="leave out the checks whether the figure can be believed")
    add("--data-root", type=str, help="folder of the data sets (default: JIIO_DATA)")
    add("--device", type=str, help="cpu, cuda, cuda:0, mps (default: the training's)")
    add("--threads", type=int, help="CPU threads (default: the training's)")


def run(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Attack what the command line says."""
    settings = check(values)
    from jiio.tasks.frame.checkpoint import load
    from jiio.tasks.frame.shipped import shipped

    checkpoint = load(shipped("CHECKPOINT", values["checkpoint"], "weights", ".safetensors"))
    report = attack(checkpoint, settings, argv)
    print(report)
    for path in (settings.report, settings.json):
        if path is not None:
            report.save(path)
            print(f"Written: {path}", file=sys.stderr)
    if settings.state is not None and not settings.keep:
        shutil.rmtree(settings.state, ignore_errors=True)
    return 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The command line, checked as far as it can be without the checkpoint. keep: the state was asked for by name."""

    norm: str | None
    radius: float | None
    suite: str
    samples: int
    batch: int
    curve: tuple[float, ...]
    seed: int
    report: Path | None
    json: Path | None
    state: Path | None
    keep: bool
    audit: bool
    data_root: Path | None
    device: str | None
    threads: int | None


def check(values: dict[str, Any]) -> Settings:
    """The settings; what is wrong ends here, before anything is read."""
    from jiio.checks import check_choice, check_integer, check_number, fail
    from jiio.tasks.frame.files import InputError, check_output_file, check_output_folder

    def path(name: str) -> Path | None:
        word = values.get(name)
        if word is not None and (not word or "\0" in word):
            fail(f"--{name}", "the name of a file", repr(word), error=InputError)
        return None if word is None else Path(word)

    report, json, state, root = path("report"), path("json"), path("state"), path("data_root")
    if report is not None and report.suffix != ".html":
        fail("--report", "a file whose name ends in .html", f"{report}", "For figures there is --json.", InputError)
    if json is not None and json.suffix == ".html":
        fail("--json", "a name that does not end in .html", f"{json}", "For a page there is --report.", InputError)
    for name, file in (("--report", report), ("--json", json)):
        if file is not None:
            check_output_file(name, file)
    written = report or json
    keep = state is not None
    if state is None and written is not None:
        state = written.with_name(f"{written.name}.state")
    if state is not None:
        check_output_folder("--state", state)
    norm, radius, threads = values.get("norm"), values.get("radius"), values.get("threads")
    return Settings(
        norm=None if norm is None else check_choice("--norm", norm, ("linf", "l2", "l1")),
        radius=None if radius is None else check_number("--radius", radius, 0.0, open_low=True),
        suite=check_choice("--suite", values.get("suite", "standard"), SUITES),
        samples=check_integer("--samples", values.get("samples", SAMPLES), 0),
        batch=check_integer("--batch", values.get("batch", BATCH), 1),
        curve=tuple(check_number("--curve", f, 0.0, open_low=True) for f in values.get("curve") or ()),
        seed=check_integer("--seed", values.get("seed", 0), 0),
        report=report,
        json=json,
        state=state,
        keep=keep,
        audit=not values.get("no_audit"),
        data_root=root,
        device=values.get("device"),
        threads=None if threads is None else check_integer("--threads", threads, 1),
    )


def attack(checkpoint: Checkpoint, settings: Settings, argv: Sequence[str]) -> Report:
    """The evaluation of the checkpoint's network on the test images of its configuration."""
    import torch

    from jiio import attacks
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError
    from jiio.tasks.frame.machine import check_device, cpu_threads

    from .data import in_batches, load_labelled
    from .task import Classify, ClassifyConfig

    config = checkpoint.config
    if not isinstance(config, ClassifyConfig):
        came = f"{checkpoint.path}, of the task {config.task}"
        fail("CHECKPOINT", "a classifier", came, "Train one: jiio train classify-faces.", InputError)
    threat = the_threat(settings, config.threat.norm, config.threat.radius)
    device = check_device(settings.device or config.device)
    model = Classify.trained(checkpoint).to(device).eval()
    suite = fitting(attacks.SUITES[settings.suite](), model, threat, config.data.classes)
    limit = None if settings.samples == 0 else settings.samples
    data = load_labelled(dataclasses.replace(config.data, test_limit=limit), data_root=settings.data_root)
    count = len(data.test)
    told = f"{settings.suite}, {len(suite)} attacks, {count} images"
    say(f"{type(model).__name__} of {checkpoint.path}: {threat.norm} radius {threat.radius:g}, {told}.")
    if settings.samples > count:
        say(f"There are only {count} test images.")
    begin = time.perf_counter()

    def progress(line: str) -> None:
        say(f"{line} ({time.perf_counter() - begin:.0f} s)")

    try:
        with cpu_threads(settings.threads or config.threads):
            return attacks.evaluate(
                model,
                in_batches(data, settings.batch, device),
                threat,
                suite,
                generator=torch.Generator().manual_seed(settings.seed),
                state_path=settings.state,
                curve=settings.curve,
                audit=attacks.Audit() if settings.audit else None,
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        again = shlex.join(["jiio", *argv])
        kept = "nothing was kept, as there is no --state" if settings.state is None else f"continue by: {again}"
        raise KeyboardInterrupt(f"Interrupted; {kept}.") from stop


def the_threat(settings: Settings, norm: str, radius: float) -> ThreatModel:
    """What the command line says about the adversary, filled up with the training's threat where there is one."""
    from jiio.attacks import ThreatModel
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError

    if norm == "none" and (settings.norm is None or settings.radius is None):
        missing = "--norm" if settings.norm is None else "--radius"
        fail(missing, "a norm and a radius, as the training had no threat", "none", error=InputError)
    if settings.norm not in (None, norm) and settings.radius is None:
        came = f"none, and the training's is for {norm}"
        fail("--radius", f"a radius for the norm {settings.norm}", came, error=InputError)
    return ThreatModel(settings.norm or norm, radius if settings.radius is None else settings.radius)


def fitting(
    suite: Sequence[AbstractAttack], model: nn.Module, threat: ThreatModel, classes: int
) -> list[AbstractAttack]:
    """The attacks of a suite that this model and threat allow.

    An objective that needs more classes than there are becomes the margin; random search is left out for L1, which it
    does not know.
    """
    import importlib.util

    from jiio.attacks import AutoAttack, JointAttack, Margin, Square, Target
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError

    kept: list[AbstractAttack] = []
    for one in suite:
        objective = getattr(one, "objective", None)
        if isinstance(one, JointAttack) and not Target(model).implicit:
            came = f"a {type(model).__name__}"
            fail("--suite", "an equilibrium model for deq", came, "Take standard or autoattack.", InputError)
        if isinstance(one, AutoAttack) and importlib.util.find_spec("pyautoattack") is None:
            remedy = 'Install the extra: pip install "jiio[attacks]".'
            fail("--suite", "the package pyautoattack for autoattack", "no such package", remedy, InputError)
        if isinstance(one, Square) and threat.norm == "l1":
            say("Square knows no L1 ball, so it is left out.")
            continue
        if objective is not None and objective.least_classes > classes:
            one = dataclasses.replace(one, objective=Margin())  # type: ignore[type-var]
        if all(one.name != other.name for other in kept):
            kept.append(one)
    return kept


def say(line: str) -> None:
    """A line of news."""
    print(line, file=sys.stderr, flush=True)
