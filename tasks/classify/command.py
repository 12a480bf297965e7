"""``jiio attack``: how much accuracy an adversary leaves a classifier, and whether the figure can be trusted."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare
from jiio.tasks.frame.outputs import of_checkpoint, of_config
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.terminal import say

from .corrupted import corrupted, without_ball
from .masks import gives_masks, pixels_attacked
from .options import AttackOptions, ImageOptions, ModelOptions
from .written import check_places, forget

if TYPE_CHECKING:
    from jiio.attacks import Leaderboard, Report
    from jiio.attacks.evaluation.shards import Shard
    from jiio.tasks.frame.checkpoint import Checkpoint

    from .victim import Asked, Victim


def declare_attack(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    for record in (ModelOptions, ImageOptions, AttackOptions):
        declare(parser, record)


def run_attack(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Attack what the command line says."""
    asked = chosen(ModelOptions, values), chosen(ImageOptions, values), chosen(AttackOptions, values)
    options = asked[2]

    # What is measured hangs on what the network answers, and then on what is asked.
    if len(asked[0].checkpoint) == 1 and gives_masks(asked[0].checkpoint[0]):
        ((checkpoint, _),) = opened(asked[0].checkpoint, options, ())
        return show(pixels_attacked(checkpoint, asked, argv), options)
    if options.corruptions:
        kept = () if options.baseline is None else (options.baseline,)
        return show(corrupted(the_victims(without_ball(asked), kept), asked, argv), options)
    victims = the_victims(asked)
    reports = [attacked(victim, asked, folder, argv) for victim, folder in places(victims, options)]
    found = [report for report in reports if report is not None]
    if len(found) < len(reports):
        return 0

    show(found[0] if len(found) == 1 else compared(found), options)
    if options.folder is not None and options.state is None:
        for _, folder in places(victims, options):
            forget(folder or options.folder)
        forget(options.folder)
    return 0


def show(result: Any, options: AttackOptions) -> int:
    """Print it, and write it to the files that are asked for."""
    print(result)
    for _, path in options.written:
        result.save(path)
        say(f"Written: {path}")
    return 0


def compared(reports: Sequence[Report]) -> Leaderboard:
    """Several in one table."""
    from jiio.attacks import Leaderboard

    return Leaderboard(tuple(reports))


def places(victims: Sequence[Victim], options: AttackOptions) -> list[tuple[Victim, Path | None]]:
    """Each with the folder of its finished batches."""
    if options.folder is None or len(victims) == 1:
        return [(victim, options.folder) for victim in victims]
    return [(victim, options.folder / f"model-{i + 1}") for i, victim in enumerate(victims)]


def the_victims(asked: Asked, kept: tuple[Path, ...] = ()) -> list[Victim]:
    """What is attacked; where nothing may be written is said before anything heavy is loaded. kept: more files that
    stay what they are.
    """
    models, images, options = asked
    files = [images.path, *kept, *(file for own in models.own for file in own.files)]
    given = tuple(path for path in files if path is not None and path.exists())
    if models.model:
        check_places(options, given)
        from .victim import Victim, check_alike

        return check_alike([Victim.of_model(own, asked) for own in models.own], options)

    from .victim import Victim, check_alike

    pairs = opened(models.checkpoint, options, given)
    return check_alike([Victim.of_checkpoint(checkpoint, word, asked) for checkpoint, word in pairs], options)


def opened(words: Sequence[str], options: AttackOptions, given: tuple[Path, ...]) -> list[tuple[Checkpoint, str]]:
    """The checkpoints, each with the word that names it."""
    paths = [shipped("CHECKPOINT", word, "weights", ".safetensors") for word in words]
    given += tuple(file for path in paths for file in of_checkpoint(path))
    check_places(options, given)
    from jiio.tasks.frame.checkpoint import load

    # The pictures that a training was made of are known only with its configuration.
    checkpoints = [load(path) for path in paths]
    check_places(options, (*given, *(folder for one in checkpoints for folder in of_config(one.config))))
    return list(zip(checkpoints, words, strict=True))


def announce(victim: Victim, asked: Asked) -> None:
    """What is about to be done, in a line."""
    threat, count = victim.threat, len(victim.pictures.images)
    told = f"{victim.attacks.told}, {len(victim.attacks.all)} attacks, {count} images"
    say(f"{victim.name}: {threat.norm} radius {threat.radius:g}, {told}.")
    if asked[1].samples > count:
        say(f"There are only {count} test images.")


def attacked(victim: Victim, asked: Asked, folder: Path | None, argv: Sequence[str]) -> Report | None:
    """The report; None where this process had only a part of the work and others are not done with theirs."""
    from jiio.attacks.evaluation.shards import Shard
    from jiio.outputs.lock import InUseError

    part = asked[2].part
    announce(victim, asked)
    with resumable(folder, argv):
        if part is None:
            return judged(victim, asked, folder, argv, Shard())
        judged(victim, asked, folder, argv, part)

        # Whoever finds all batches there makes the report; of two that do, one gets the folder.
        count = len(victim.batches(asked[1].batch))
        there = len(list(folder.glob("batch-*.safetensors"))) if folder else 0
        if there < count:
            say(f"Part {part.index + 1} of {part.count} is done; {there} of {count} batches are there.")
            return None
        try:
            return judged(victim, asked, folder, argv, Shard())
        except InUseError:
            say(f"Part {part.index + 1} of {part.count} is done; another process writes the report.")
            return None


@contextlib.contextmanager
def resumable(folder: Path | None, argv: Sequence[str]) -> Iterator[None]:
    """Who interrupts is told that the same line goes on, as long as the finished batches are kept somewhere."""
    try:
        yield
    except KeyboardInterrupt as stop:
        again = shlex.join(["jiio", *argv])
        kept = "nothing was kept, as there is no --state" if folder is None else f"continue by: {again}"
        raise KeyboardInterrupt(f"Interrupted; {kept}.") from stop


def judged(victim: Victim, asked: Asked, folder: Path | None, argv: Sequence[str], part: Shard) -> Report:
    """The report, with a line of news for every batch."""
    import torch

    from jiio import attacks
    from jiio.tasks.frame.machine import cpu_threads

    _, images, options = asked
    begin, draws = time.perf_counter(), torch.Generator().manual_seed(options.seed)
    about = {"model": victim.name, "data": victim.data, "suite": victim.attacks.told}
    about["command"] = shlex.join(["jiio", *argv])
    with cpu_threads(victim.threads):
        return attacks.evaluate(
            victim.target,
            victim.batches(images.batch),
            victim.threat,
            victim.attacks.all,
            generator=draws,
            state_path=folder,
            curve=options.curve,
            audit=None if options.no_audit else attacks.Audit(),
            progress=lambda line: say(f"{line} ({time.perf_counter() - begin:.0f} s)"),
            about=about,
            shard=part,
        )
