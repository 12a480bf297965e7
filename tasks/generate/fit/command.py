"""``jiio fit``; the work is in :mod:`.picture`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare

from .options import FitOptions


def declare_fit(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, FitOptions)


def run_fit(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Fit what the command line says; what goes wrong is raised as JiioError."""
    options = chosen(FitOptions, values)
    from .picture import fit_picture

    fit_picture(options, argv)
    return 0
