"""``jiio restore``; the work is in :mod:`.run`, which is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare

from .options import RestoreOptions


def declare_restore(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, RestoreOptions)


def run_restore(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Restore what the command line says; what goes wrong is raised as JiioError."""
    options = chosen(RestoreOptions, values)
    from . import run as photos

    return photos.restore(options, argv)
