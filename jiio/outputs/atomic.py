"""Files that appear whole or not at all, whatever dies and whoever else writes."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import secrets
from pathlib import Path

# .<name>.<process>-<random>.jiio-part; the random part keeps threads apart, and containers of one process number.
PART = re.compile(r"\.(?P<name>.+)\.\d+-[0-9a-f]{8}\.jiio-part")


def write_whole(path: Path, data: bytes, *, parents: bool = True, replace: bool = True) -> None:
    """Write ``data`` to ``path`` so that a reader, or a machine that dies, sees the old file or the new one.

    The bytes go to a temporary name in the same folder, are flushed to the disk (fsync), and take the final name in one
    rename; then the folder is flushed too, so that the rename itself survives a power cut. parents: make the folders
    above where they are missing. replace: whether there may be a file of the name already.

    Errors: OSError (FileExistsError where it may not be replaced); the temporary file is gone then, and ``path`` as it
    was.
    """
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.jiio-part")

    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(part, path)
        else:
            take_name(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise

    flush_folder(path.parent)


def take_name(part: Path, path: Path) -> None:
    """Give a file a name that nobody has, or raise FileExistsError; of two that try at once, one succeeds."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without links: not safe against another process, which has to do
        if os.path.lexists(path):
            raise FileExistsError(path) from error
        os.replace(part, path)
    else:
        part.unlink()


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can (Windows cannot open a folder)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_parts(folder: Path, *names: str) -> None:
    """Remove what killed writers of jiio left in a folder, and no other file; for who holds the lock of the folder.

    names: of the files that only the holder writes, with wildcards (default: all). Others may still be at work on
    theirs, an evaluation on its figures in the folder of a training, for example.
    """
    for part in folder.glob(".*.jiio-part"):
        match = PART.fullmatch(part.name)
        if match is not None and any(fnmatch.fnmatchcase(match["name"], name) for name in names or ("*",)):
            with contextlib.suppress(OSError):
                part.unlink()
