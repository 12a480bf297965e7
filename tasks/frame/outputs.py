"""Where a command may write: never over what it was given, and over what exists only where it is told so.

All of it is asked before the work begins, so that a mistake costs nothing; a name that appears in the meantime is not
replaced either (:func:`write_new`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jiio.checks import fail
from jiio.outputs.atomic import PART, flush_folder, write_whole

from .files import InputError, check_output_file, check_output_folder, reason
from .load import flatten

FOLDER = "folder:"  # how a configuration names a folder of the user's pictures
OF_A_TRAINING = ("*.safetensors", "*.jsonl")


class OutputError(InputError):
    """A place that cannot be written to, so that there is no use in going on with the next picture."""


@dataclass(frozen=True)
class Outputs:
    """What a command was given, and whether it may replace what exists.

    given: files, and folders with all that is below them. overwrite: whether other files may be replaced.
    """

    given: tuple[Path, ...] = ()
    overwrite: bool = False

    def file(self, argument: str, path: Path, ours: Callable[[Path], bool] = lambda path: False) -> Path:
        """A file that can be written. ours: tells a file that this very command wrote before and may replace.

        Errors: InputError where the file is given, or exists and may not be replaced.
        """
        self.check(argument, path)
        if os.path.lexists(path) and not self.overwrite and not ours(path):
            fail(argument, "a new file", f"{path}, which exists", "Pass --overwrite to replace it.", InputError)
        return path

    def check(self, argument: str, path: Path) -> Path:
        """A file that can be written, and that is none that was given, by whatever name."""
        check_output_file(argument, path)
        if self.is_given(path):
            remedy = "What is given is never overwritten."
            fail(argument, "another file than those given", str(path), remedy, InputError)
        return path

    def folder(self, argument: str, folder: Path, names: Iterable[str], ours: bool = False) -> Path:
        """A folder for files of these names. ours: whether what is there may be replaced all the same."""
        check_output_folder(argument, folder)
        for name in names:
            self.file(argument, folder / name, lambda path: ours)
        return folder

    def empty(self, argument: str, folder: Path) -> Path:
        """A folder for files whose names are not known yet: a new or an empty one, or any without what is given."""
        check_output_folder(argument, folder)
        if any(inside(path, folder) for path in self.given):
            came = f"{folder}, which holds it"
            fail(argument, "another folder than that of what is given", came, "Name a new folder.", InputError)
        if folder.is_dir() and any(folder.iterdir()) and not self.overwrite:
            came = f"{folder}, which is not empty"
            remedy = "Name a new folder, or pass --overwrite to replace what has the same name."
            fail(argument, "an empty folder", came, remedy, InputError)
        return folder

    def is_given(self, path: Path) -> bool:
        """Whether a name leads to something given: through links in the path, or as a second name of a file."""
        if not path.exists():
            return False
        for given in self.given:
            if given.is_dir():
                if inside(path, given) or (path.stat().st_nlink > 1 and any(same(path, p) for p in given.rglob("*"))):
                    return True
            elif same(path, given):
                return True
        return False


def of_checkpoint(path: Path) -> tuple[Path, ...]:
    """The files that a checkpoint stands for: itself, or those of a training in its folder (pictures there are not)."""
    return tuple(p for kind in OF_A_TRAINING for p in sorted(path.glob(kind))) if path.is_dir() else (path,)


def of_config(config: Any) -> tuple[Path, ...]:
    """The folders of pictures that a configuration names."""
    words: list[Any] = []
    for value in flatten(dataclasses.asdict(config)).values():
        words += value if isinstance(value, (list, tuple)) else [value]
    return tuple(of_word(word) for word in words if isinstance(word, str) and word.startswith(FOLDER))


def of_word(word: str) -> Path:
    """The folder in ``folder:PATH``."""
    return Path(word.removeprefix(FOLDER))


def real(path: Path) -> Path:
    """The path without links; a circle of links ends where it is met, and is no error."""
    return Path(os.path.realpath(path))


def inside(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder."""
    return real(path).is_relative_to(real(folder))


def same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file that exists."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def write_new(argument: str, path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file whole or not at all. replace: whether one of the name may be there by now.

    Errors: OutputError where it cannot be written, for example because the disk is full, or must not.
    """
    try:
        remove_dead(path)
        write_whole(path, data, replace=replace)
    except FileExistsError as error:
        words = f"{argument}: expected a new file, got {path}, which appeared in the meantime."
        raise OutputError(f"{words} Pass --overwrite to replace it.") from error
    except OSError as error:
        raise OutputError(f"{argument}: {path} cannot be written ({reason(error)}). Nothing is left there.") from error


def remove_dead(path: Path) -> None:
    """Remove what killed writers of this very file left; whose process lives may still be writing."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.jiio-part"):
        found = PART.fullmatch(part.name)
        if found and found["name"] == path.name and not lives(int(part.name.rsplit(".", 2)[1].partition("-")[0])):
            part.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is a process of this number; where the system cannot say, there is."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # signal 0 asks and sends nothing
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_together(argument: str, folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder: either all of them, or none where the disk is full.

    They are written into a new folder beside, and take their names when all are there.

    Errors: OutputError.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".jiio-", dir=folder))
        try:
            for name, data in files.items():
                write_whole(beside / name, data)
            for name in files:
                os.replace(beside / name, folder / name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        flush_folder(folder)
    except OSError as error:
        if made:
            with contextlib.suppress(OSError):  # there may be something in it
                folder.rmdir()
        raise OutputError(
            f"{argument}: {folder} cannot be written to ({reason(error)}). Nothing is left there."
        ) from error
