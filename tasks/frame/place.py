"""The folder that a training writes into, and what in it is somebody else's.

The training's own are its checkpoints, its weights, its log, and the pictures of its task. How it knows them again when
it resumes: pictures are written after the weights, so where there are no weights yet, a picture is not its own; a log
beside checkpoints is its own; and without checkpoints it shows by its lines.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jiio.checks import fail
from jiio.outputs.atomic import remove_parts, write_whole

from .files import InputError, reason

LOG = "log.jsonl"
WEIGHTS = "weights.safetensors"
BEST = "best.safetensors"
CHECKPOINTS = "step-*.safetensors"
REMEDY = "Train into another --output, or move the file away."


@dataclass(frozen=True)
class Place:
    """A folder that is held by :func:`jiio.outputs.lock.locked`. foreign: the names in it that are somebody else's."""

    folder: Path
    foreign: frozenset[str]

    def write(self, name: str, data: bytes) -> None:
        """A file of the training's own, whole or not at all; never over somebody else's.

        Errors: InputError.
        """
        if name in self.foreign:
            self.refuse(name)
        write_whole(self.folder / name, data)

    def refuse(self, name: str) -> NoReturn:
        """Say that a file stands in the way."""
        fail("output", f"a folder without a {name} of somebody else's", f"{self.folder / name}", REMEDY, InputError)

    def clean(self, pictures: Collection[str]) -> None:
        """Remove what a killed run of this training was about to write."""
        remove_parts(self.folder, CHECKPOINTS, WEIGHTS, BEST, LOG, *pictures)


def enter(folder: Path, pictures: Collection[str], *, begun: bool) -> Place:
    """The folder, where nothing in it stands in the way; nothing is written. For who holds its lock.

    pictures: the names of those that the task will write. begun: there is a checkpoint to go on from.

    Errors: InputError that names the file, where the training would write over somebody else's.
    """
    try:
        names = {path.name for path in folder.iterdir()}
        finished = begun and WEIGHTS in names
        place = Place(folder, frozenset() if finished else frozenset(names - {LOG}))

        for name in sorted(place.foreign.intersection(pictures)):
            place.refuse(name)
        if LOG in names and not begun and not is_own_log(folder / LOG):
            place.refuse(LOG)
        return place
    except OSError as error:
        fail("output", "a folder that can be read", f"{folder} ({reason(error)})", error=InputError)


def is_own_log(path: Path) -> bool:
    """Whether a log is that of a training which was cut off before its first checkpoint: steps 0, 1, ..., nothing else.

    The last line may be torn; an empty file belongs to nobody.
    """
    if path.is_symlink() or not path.is_file():
        return False
    *lines, torn = path.read_bytes().split(b"\n")
    try:
        whole = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return False

    keys = {"step", "loss", "gradient_norm", "rate"}
    if not all(isinstance(line, dict) and line.keys() >= keys for line in whole):
        return False
    begins = f'{{"step": {len(whole)}, '.encode()
    steps = [line["step"] for line in whole]
    return steps == list(range(len(whole))) and torn[: len(begins)] == begins[: len(torn)]
