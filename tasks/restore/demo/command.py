"""``jiio demo``: its options; the work is in :mod:`.demo`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import check_seed, chosen, declare
from jiio.tasks.frame.outputs import Outputs

FILES = ("joint.gif", "restored.png", "convergence.png", "figures.json", "index.html")
MARK = "<!-- This page was written by jiio demo, which may replace it and the files beside it. -->"


@dataclass(frozen=True)
class DemoOptions:
    """How the demonstration is made, and where.

    Args:
        fast: use the weights that come with jiio instead of training
        output: folder for the pictures and the report; those of an earlier demo are replaced
        seed: of everything random
        overwrite: replace other files of the same names as well
    """

    fast: bool = False
    output: Path = Path("jiio-demo")
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)


def declare_demo(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, DemoOptions)


def run_demo(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Make the page and the pictures."""
    options = chosen(DemoOptions, values)
    outputs = Outputs(overwrite=options.overwrite)
    outputs.folder("--output", options.output, FILES, ours=is_demo(options.output / "index.html"))

    from . import demo

    demo.run(fast=options.fast, output=options.output, seed=options.seed)
    return 0


def is_demo(page: Path) -> bool:
    """Whether a page is one of an earlier demo."""
    try:
        return page.read_bytes().rstrip().endswith(MARK.encode())
    except OSError:
        return False
