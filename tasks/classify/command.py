"""``jiio attack``: how much accuracy an adversary leaves a classifier, and whether the figure can be trusted."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.files import check_output_folder, read_bytes
from jiio.tasks.frame.options import chosen, declare
from jiio.tasks.frame.outputs import Outputs, of_checkpoint, of_config
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.terminal import say

from .options import AttackOptions

if TYPE_CHECKING:
    from jiio.attacks import Report
    from jiio.tasks.frame.checkpoint import Checkpoint

    from .victim import Victim


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


def attack(checkpoint: Checkpoint, options: AttackOptions, argv: Sequence[str]) -> Report:
    """The evaluation of the checkpoint's network on the test images of its configuration."""
    from .victim import Victim

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
