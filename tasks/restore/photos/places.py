"""Which pictures a command line means, and where their results go, decided for all before any is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_output_file, check_output_folder, reason
from jiio.tasks.frame.outputs import Outputs, real
from jiio.tasks.images.encode import BY_SUFFIX, FileKind, check_fits, check_suffix, suffix_of
from jiio.tasks.images.formats import suffixes
from jiio.tasks.images.header import Header, read_header

WORD = "-restored"


@dataclass(frozen=True)
class Source:
    """A picture to be restored. folder: the one that was named and has it inside; None where the picture was named."""

    path: Path
    folder: Path | None = None

    @property
    def inside(self) -> Path:
        """The folder that holds it, as seen from the one that was named."""
        return Path() if self.folder is None else self.path.parent.relative_to(self.folder)


@dataclass(frozen=True)
class Plan:
    """Where the restored picture goes, and as what kind of file."""

    source: Source
    target: Path
    kind: FileKind


def find_pictures(words: Sequence[str], output: str | None = None) -> list[Source]:
    """The named pictures, and those inside the named folders and the folders in them, by name; hidden files are left
    alone, and so is the folder ``output``, whose pictures are results.

    Errors: InputError where a folder has no picture or cannot be read.
    """
    found: list[Source] = []
    for word in words:
        path = Path(word)
        found += inside_of(path, output) if path.is_dir() else [Source(path)]
    return found


def inside_of(folder: Path, output: str | None) -> list[Source]:
    """The pictures inside a folder."""
    try:
        os.listdir(folder)
    except OSError as error:
        raise InputError(f"pictures: the folder {folder} cannot be read ({reason(error)}).") from error
    pictures = [path for path in files_in(folder, output) if path.suffix.lower() in suffixes()]
    if not pictures:
        fail("pictures", "a folder with pictures", f"{folder} without any", error=InputError)
    return [Source(picture, folder) for picture in pictures]


def files_in(folder: Path, output: str | None) -> Iterator[Path]:
    """The ordinary files inside a folder, folder by folder, without hidden ones; links to folders are not followed."""
    results = None if output is None else real(Path(output))
    for above, folders, names in os.walk(folder):
        here = Path(above)
        folders[:] = sorted(one for one in folders if not one.startswith(".") and real(here / one) != results)
        yield from (here / name for name in sorted(names) if not name.startswith(".") and (here / name).is_file())


def left_out(words: Sequence[str], output: str | None = None) -> list[Path]:
    """The files inside the named folders whose names are not those of pictures that can be read here."""
    files = (path for word in words if Path(word).is_dir() for path in files_in(Path(word), output))
    return [path for path in files if path.suffix.lower() not in suffixes()]


@dataclass(frozen=True)
class Places:
    """Where results go.

    output: what the user named, a file or a folder, or None. single: whether a single picture was named and no folder.
    outputs: what is never written to, and whether results that exist may be replaced.
    """

    output: str | None
    single: bool
    outputs: Outputs

    def __post_init__(self) -> None:
        if self.output is None:
            return
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

    def plan(self, sources: Sequence[Source], trouble: Callable[[Source, InputError], object]) -> list[Plan]:
        """A plan for each picture that can have one; ``trouble`` is told of the others."""
        plans: dict[Path, Plan] = {}  # by the true place of the result
        for source in sources:
            try:
                plan = self.plan_one(source)
                other = plans.setdefault(real(plan.target), plan)
                if other is not plan:
                    came = f"{plan.target}, which is the result of {other.source.path} already"
                    fail("--output", f"a place for the result of {source.path}", came, error=InputError)
            except InputError as error:
                trouble(source, error)
        return list(plans.values())

    def plan_one(self, source: Source) -> Plan:
        """Errors: InputError where the place is a file of the user's, or of a kind that cannot hold the picture."""
        header = read_header(source.path)
        target = self.target(source, header)
        self.outputs.check("--output", target)
        kind = check_suffix("--output", target) if header is None else check_fits("--output", target, header)
        return Plan(source, target, kind)

    def target(self, source: Source, header: Header | None) -> Path:
        """Beside ``photo.png``, ``photo-restored.png``; beside the folder ``photos``, ``photos-restored/photo.png``; in
        an output folder, ``photo.png``; in the same folders inside as it was. The suffix changes where the kind of file
        cannot be written.
        """
        # Without a header nothing will be restored, and the place only has to be one.
        own = source.path.suffix if source.path.suffix.lower() in BY_SUFFIX else ".png"
        name = source.path.stem + (own if header is None else suffix_of(header))
        if self.output is not None:
            return Path(self.output) / source.inside / name if self.is_folder else Path(self.output)
        if source.folder is None:
            return source.path.with_name(Path(name).stem + WORD + Path(name).suffix)

        folder = real(source.folder)  # "." and ".." have no name of their own
        above = source.folder.parent if source.folder.name not in ("", "..") else folder.parent
        return above / (folder.name + WORD) / source.inside / name
