"""The arguments of ``jiio restore``; the work is in :mod:`.run`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser


def declare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments."""
    add: Callable[..., Any] = parser.add_argument
    add("pictures", type=str, nargs="+", help="pictures, or folders of them (folders inside are not searched)")
    where = "a file or a folder (default: photo-restored.png beside photo.png, photos-restored/ beside photos/)"
    add("--output", type=str, help=where)
    noise = "noise in 8-bit grey levels, 0 to 128, whatever the depth of the picture (default: estimated)"
    add("--sigma", type=float, help=noise)
    add("--mask", type=str, help="a picture of the same size: white pixels are kept, black ones are missing")
    add("--missing", type=str, help="pixels of this colour are missing: '#ff00ff', or a grey level from 0 to 255")
    add("--blur", type=str, help="gaussian:WIDTH, motion:LENGTH,ANGLE (pixels, degrees), or a picture of the kernel")
    add("--upscale", type=int, help="enlarge by 2, 3 or 4")
    add("--restorer", type=str, help="image-space (default) or direct (faster, for noise alone)")
    add("--weights", type=str, help="shipped weights, a checkpoint or the folder of a training, instead of --restorer")
    add("--symmetries", type=int, help="average over 1 (default), 2, 4 or 8 turns and mirror images: better and slower")
    add("--report", type=str, help="also write a page about the restoration of a single picture to this .html file")
    add("--confidence", type=str, help="also write the error to be expected of each pixel to this .png file")
    add("--tile", type=int, help="side of the windows of large pictures, a multiple of 8 (default: 384)")
    add("--max-steps", type=int, help="steps of a solve at most (default: as the weights were made for)")
    add("--device", type=str, help="cpu (default), cuda, cuda:0, mps")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--overwrite", action="store_true", help="replace results that exist; the pictures themselves never")


def run(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Restore what the command line says; what goes wrong is raised as JiioError."""
    from . import run as photos

    photos.restore(values, argv)
    return 0
