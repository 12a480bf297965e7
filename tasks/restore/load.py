"""From the name of weights, a file or the folder of a training to the restorer in it."""

from __future__ import annotations

from collections.abc import Iterable

from jiio.checks import fail
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.task import overrides, task_of

from .base import AbstractRestorer


def load_restorer(argument: str, word: str, *, allow: Iterable[str] = ()) -> AbstractRestorer:
    """The restorer in a checkpoint, in the folder of a training, or in the shipped weights of that name; in eval mode.

    argument: what the user calls it, for messages. word: a file, a folder or a name such as "prior-grey". allow: import
    paths of one's own that the file may name.

    Errors: InputError where there is none, CheckpointError where it is damaged.
    """
    checkpoint = load(shipped(argument, word, "weights", ".safetensors"), allow=allow)
    task = task_of(checkpoint)
    if not overrides(task, "restorer"):
        came = f"{word}, a training of the task {checkpoint.config.task!r}"
        fail(argument, "weights of a restorer", came, "Train one by `jiio train prior-grey`.", InputError)
    return task.restorer(checkpoint).eval().requires_grad_(False)
