"""One writer at a time: the folder that a training, an evaluation or a command writes into is locked while it does."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..checks import JiioError, fail

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".jiio-lock"
MAX_TRIES = 1000


class InUseError(JiioError, RuntimeError):
    """Somebody else writes into this folder at the moment."""


class LockError(JiioError, RuntimeError):
    """A folder cannot be locked: it is read-only, or its file system knows no locks."""


@contextlib.contextmanager
def locked(folder: Path, argument: str) -> Iterator[None]:
    """Hold a folder for oneself alone, against other processes and other threads; make it where it is missing.

    The lock is the operating system's advisory lock on the file ``.jiio-lock`` inside, so a process that dies lets go
    of it however it dies. At the end that file is removed, and so are the folders made here if they stayed empty.
    It cannot be taken twice: who holds it hands the folder on to functions that do not ask again.

    argument: what the folder is called, for messages.

    Errors: InUseError where it is held already, at once and with nothing written; LockError where it cannot be locked.
    """
    hold = _Hold(folder)
    try:
        _take(hold, argument)
        yield
    finally:
        hold.release()


def _take(hold: _Hold, argument: str) -> None:
    """Lock, or say in a sentence why not."""
    try:
        for _ in range(MAX_TRIES):
            # Whoever has just let go may have removed the folder or the lock file under our hands: then once more.
            with contextlib.suppress(FileNotFoundError):
                if hold.take():
                    return
        problem = "it vanishes again and again"
    except BlockingIOError:
        remedy = "Wait until it is done, stop it, or name another folder."
        fail(argument, "a folder that nobody else writes into", f"{hold.folder}, which is in use", remedy, InUseError)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)

    remedy = "Name one that you may write to, on a disk that knows locks."
    fail(argument, "a folder that can be locked", f"{hold.folder} ({problem})", remedy, LockError)


@dataclass(eq=False)
class _Hold:
    """A folder on its way to being held. made: folders that had to be made for it. handle: the locked file, open."""

    folder: Path
    made: list[Path] = field(default_factory=list)
    key: tuple[int, int] | None = None
    handle: int | None = None

    def take(self) -> bool:
        """Try once; False where the lock file was exchanged meanwhile. BlockingIOError where somebody holds it."""
        self._make()
        status = self.folder.stat()
        key = (status.st_dev, status.st_ino)

        # Asked before the file is opened: on NFS, where flock is a lock of the whole process, two threads would both
        # get it, and merely closing the file again would drop the other one's.
        if _HELD.setdefault(key, self) is not self:
            raise BlockingIOError
        try:
            self.handle = _open_locked(self.folder / NAME)
        finally:
            if self.handle is None:
                del _HELD[key]
        self.key = key
        return self.handle is not None

    def release(self) -> None:
        """Let go, and leave nothing behind that was made for the lock alone."""
        if self.handle is not None:
            _remove(self.handle, self.folder / NAME)
            self.handle = None
            _HELD.pop(self.key, None)  # type: ignore[arg-type]
        for empty in reversed(self.made):
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _make(self) -> None:
        """Make the folder and those above it that are missing, and remember which."""
        missing = [part for part in (self.folder, *self.folder.parents) if not part.exists()]
        for part in reversed(missing):
            try:
                part.mkdir()
                self.made.append(part)
            except FileExistsError:
                mode = part.lstat().st_mode  # FileNotFoundError where it has gone again
                if not stat.S_ISDIR(mode) and not part.is_dir():
                    raise


# What this process holds, by device and inode of the folder.
_HELD: dict[tuple[int, int], _Hold] = {}


def _open_locked(path: Path) -> int | None:
    """The file, opened and locked; None where it is no longer the one of that name, because its holder removed it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        _lock(handle)
        if os.path.samestat(os.fstat(handle), os.lstat(path)):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """Lock an open file, or raise BlockingIOError at once where somebody else has."""
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError from error


def _remove(handle: int, path: Path) -> None:
    """Remove the lock file and let go of it, in the order in which nobody can come between.

    Elsewhere the name goes while the lock still holds: whoever had opened the file sees afterwards that the name has
    gone. Windows removes no file that anybody has open, which is the same protection, so there it is closed first. A
    file of this name with something inside is not ours, and stays.
    """
    ours = os.fstat(handle).st_size == 0
    if sys.platform == "win32":
        os.close(handle)
    if ours:
        with contextlib.suppress(OSError):
            path.unlink()
    if sys.platform != "win32":
        os.close(handle)


def _forget() -> None:
    """In a child made by fork: the lock stays with the parent, and does not outlive it in the child."""
    for hold in _HELD.values():
        if hold.handle is not None:
            os.close(hold.handle)
            hold.handle = None
            hold.made.clear()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
