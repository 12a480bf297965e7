"""``jiio fit``: the arguments; the work is in :mod:`.picture`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser


def declare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments."""
    add: Callable[..., Any] = parser.add_argument
    add("picture", type=str, help="a picture of any size, colour or grey")
    add("--checkpoint", type=str, help="of a generator: a file, the folder of a training, or shipped weights")
    add("--output", type=str, help="folder for the results (default: photo-fit/ beside photo.png)")
    add("--how", type=str, help="whole: the middle square, at the generator's size; tiles: every part of the picture")
    add("--restarts", type=int, help="further starts of every fit, 0 to 100 (default: 2)")
    add("--max-steps", type=int, help="steps of a solve at most (default: 200)")
    add("--seed", type=int, help="of the further starts (default: 0)")
    add("--device", type=str, help="cpu (default), cuda, cuda:0, mps")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--overwrite", action="store_true", help="replace results that exist")


def run(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Fit what the command line says; what goes wrong is raised as JiioError."""
    from . import picture as fitting

    fitting.fit_picture(values, argv)
    return 0
