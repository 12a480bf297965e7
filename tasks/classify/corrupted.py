"""``jiio attack --corruptions``: the error of classifiers under noise, blur, weather and compression."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jiio.checks import JiioError, fail
from jiio.tasks.frame.files import InputError, check_file
from jiio.tasks.frame.terminal import say

from .options import AttackOptions

if TYPE_CHECKING:
    from jiio.attacks import CorruptionReport

    from .victim import Asked, Victim

MOST = 1 << 26  # bytes of a report


def without_ball(asked: Asked) -> Asked:
    """What is asked, in the words of attacks: no ball is wanted, and as a model of one's own brings none, one stands in
    its place.
    """
    models, images, options = asked
    check_families(options)
    if not models.model:
        return asked
    ball = dataclasses.replace(options, norm="linf", radius="1/255", corruptions=(), baseline=None)
    return models, images, ball


def corrupted(victims: Sequence[Victim], asked: Asked, argv: Sequence[str]) -> Any:
    """The report, or the table of several models."""
    from jiio.attacks import CorruptionBoard

    baseline = None if asked[2].baseline is None else read_baseline(asked[2])
    reports = [measured(victim, asked, baseline, argv) for victim in victims]
    return reports[0] if len(reports) == 1 else CorruptionBoard(tuple(reports))


def check_families(options: AttackOptions) -> None:
    """Raise where a name is no family."""
    from jiio.attacks.corruptions.families import FAMILIES

    for name in options.families or ():
        if name not in FAMILIES:
            fail("--corruptions", f"all, or some of {', '.join(FAMILIES)}", repr(name), error=InputError)


def read_baseline(options: AttackOptions) -> CorruptionReport:
    """What an earlier run wrote."""
    from jiio.attacks import CorruptionReport

    assert options.baseline is not None
    check_file("--baseline", options.baseline, "a report that --corruptions and --json wrote", MOST)
    try:
        return CorruptionReport.read(options.baseline)
    except JiioError as error:
        raise InputError(f"--baseline, {error}") from error


def measured(victim: Victim, asked: Asked, baseline: CorruptionReport | None, argv: Sequence[str]) -> CorruptionReport:
    """The report on one model, with a line of news for every batch."""
    from jiio import attacks
    from jiio.attacks.corruptions.families import FAMILIES
    from jiio.tasks.frame.machine import cpu_threads

    _, images, options = asked
    count = len(victim.pictures.images)
    say(f"{victim.name}: {len(options.families or FAMILIES)} families, {count} images.")
    if images.samples > count:
        say(f"There are only {count} test images.")

    # The units of the pictures are those of the model; corruptions are defined between black and white.
    with cpu_threads(victim.threads):
        return attacks.evaluate_corruptions(
            victim.target,
            victim.batches(images.batch),
            options.families,
            bounds=images.box or (0.0, 1.0),
            seed=options.seed,
            baseline=baseline,
            progress=say,
            about={"model": victim.name, "data": victim.data, "command": shlex.join(["jiio", *argv])},
        )
