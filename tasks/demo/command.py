"""``jiio demo``; the work is in :mod:`.demo`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare
from jiio.tasks.frame.outputs import Outputs

from .options import FILES, MARK, DemoOptions


def declare_demo(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, DemoOptions)


def run_demo(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Make the page and the pictures."""
    options = chosen(DemoOptions, values)
    outputs = Outputs(overwrite=options.overwrite)
    outputs.folder("--output", options.output, FILES, ours=is_demo(options.output / "index.html"))

    from jiio.tasks.frame.machine import check_device

    from . import demo

    device = check_device(options.device)
    demo.run(fast=options.fast, output=options.output, seed=options.seed, device=device)
    return 0


def is_demo(page: Path) -> bool:
    """Whether a page is one of an earlier demo."""
    try:
        return page.read_bytes().rstrip().endswith(MARK.encode())
    except OSError:
        return False
