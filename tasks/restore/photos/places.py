"""Which pictures a command line means, and where their results go; nothing is overwritten by accident."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_output_file, check_output_folder, reason
from jiio.tasks.images.encode import check_suffix, natural_suffix
from jiio.tasks.images.pictures import SUFFIXES, Picture

WORD = "-restored"


@dataclass(frozen=True)
class Source:
    """A picture to be restored. folder: the one that was named and holds it; None where the picture was named."""

    path: Path
    folder: Path | None = None


def find_pictures(words: list[str]) -> list[Source]:
    """The named pictures, and those directly inside the named folders, by name; hidden files are left alone.

    Errors: InputError where a folder has no picture or cannot be read.
    """
    found = []
    for word in words:
        path = Path(word)
        if not path.is_dir():
            found.append(Source(path))
            continue
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            raise InputError(f"pictures: the folder {path} cannot be read ({reason(error)}).") from error
        pictures = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
        if not pictures:
            remedy = "Folders inside are not searched; name them too."
            fail("pictures", "a folder with pictures", f"{path} without any", remedy, InputError)
        found += [Source(picture, path) for picture in pictures]
    return found


@dataclass(frozen=True)
class Places:
    """Where results go.

    output: what the user named, a file or a folder, or None. single: whether a single picture was named and no folder.
    given: the files that the command line names or finds, which are never written to. overwrite: whether results that
    exist may be replaced. taken: results of this run, with the pictures that they are of.
    """

    output: str | None
    single: bool
    given: tuple[Path, ...] = ()
    overwrite: bool = False
    taken: dict[Path, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.output is None:
            return
        if not self.output or "\0" in self.output:
            fail("--output", "the name of a file or a folder", repr(self.output), error=InputError)
        if self.is_folder:
            check_output_folder("--output", Path(self.output))
        elif not self.single:
            remedy = f"A folder that does not exist yet is named {self.output}/."
            fail("--output", "a folder for several pictures", f"the file {self.output}", remedy, InputError)
        else:
            check_suffix("--output", Path(self.output))
            check_output_file("--output", Path(self.output))

    @property
    def is_folder(self) -> bool:
        """Whether the named output is a folder: it exists as one, ends like one, or its name has no suffix."""
        output = self.output or ""
        return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix

    def result(self, source: Source, picture: Picture) -> Path:
        """The path of the restored picture.

        Beside ``photo.png``, ``photo-restored.png``; beside the folder ``photos``, ``photos-restored/photo.png``; in an
        output folder, ``photo.png``. The suffix changes where the kind of file cannot be written.

        Errors: InputError where that is a file of the user's, or the result of another picture of this run.
        """
        suffix = natural_suffix(picture)
        if self.output is not None:
            folder = Path(self.output)
            path = folder / (source.path.stem + suffix) if self.is_folder else folder
        elif source.folder is not None:
            name = source.folder.resolve().name + WORD
            beside = source.folder.parent if source.folder.name not in ("", "..") else source.folder.resolve().parent
            path = beside / name / (source.path.stem + suffix)
        else:
            path = source.path.with_name(source.path.stem + WORD + suffix)
        self.check("--output", path)
        whose = self.taken.setdefault(path.resolve(), source.path)
        if whose != source.path:
            came = f"{path}, which is the result of {whose} already"
            fail("--output", f"a place for the result of {source.path}", came, error=InputError)
        return path

    @functools.cached_property
    def protected(self) -> frozenset[tuple[int, int]]:
        """The given files, whatever they are called."""
        return frozenset(identity(path) for path in self.given if path.exists())

    def check(self, argument: str, path: Path) -> None:
        """A file that can be written, and is none that was given."""
        check_output_file(argument, path)
        if path.exists() and identity(path) in self.protected:
            remedy = "What is given is never overwritten."
            fail(argument, "another file than those given", str(path), remedy, InputError)

    def check_new(self, argument: str, path: Path) -> Path:
        """A file that can be written, and that does not exist unless it may be replaced."""
        self.check(argument, path)
        if path.exists() and not self.overwrite:
            fail(argument, "a new file", f"{path}, which exists", "Pass --overwrite to replace it.", InputError)
        return path


def identity(path: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino
