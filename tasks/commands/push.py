"""``jiio push``: the weights of a training into a repository of the Hugging Face hub, for others to load by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare
from jiio.tasks.frame.terminal import say


@dataclass(frozen=True)
class PushOptions:
    """What goes where.

    Args:
        checkpoint: a checkpoint, the folder of a training, or shipped weights
        repository: OWNER/NAME, or OWNER/NAME@BRANCH, of the hub; it is made where it is not there
        private: make it for you alone
        message: of the commit (default: the task and its steps)
    """

    checkpoint: str
    repository: str
    private: bool = False
    message: str | None = None


def declare_push(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, PushOptions)


def run_push(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Put the weights there, and say by which name they are loaded."""
    options = chosen(PushOptions, values)
    from jiio.tasks.frame.checkpoint import load
    from jiio.tasks.frame.hub import PREFIX, Address
    from jiio.tasks.frame.pushing import push
    from jiio.tasks.frame.shipped import shipped

    address = Address.of("REPOSITORY", options.repository)
    done = push(
        load(shipped("CHECKPOINT", options.checkpoint, "weights", ".safetensors")),
        options.repository,
        private=options.private,
        message=options.message,
        argument="REPOSITORY",
    )
    print(done)
    say(f"Load it as {PREFIX}{address}, for example: jiio evaluate {PREFIX}{address}")
    return 0
