"""``jiio demo``: its arguments; the work is in :mod:`.demo`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def declare_demo(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--fast", action="store_true", help="use the weights that come with jiio instead of training")
    parser.add_argument("--output", type=str, default="jiio-demo", help="folder for the pictures and the report")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def run_demo(values: dict[str, Any], argv: Sequence[str]) -> int:
    from jiio.checks import check_integer
    from jiio.tasks.frame.files import check_output_folder

    output = check_output_folder("--output", Path(values.get("output", "jiio-demo")))
    seed = check_integer("--seed", values.get("seed", 0), 0)
    from . import demo

    demo.run(fast=values.get("fast", False), output=output, seed=seed)
    return 0
