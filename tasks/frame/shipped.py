"""Files that come with jiio, or with a package that adds a room: the configurations and the weights of the rooms; and
weights on the hub.
"""

from __future__ import annotations

from pathlib import Path

from .hub import PREFIX, fetched
from .registry import FOLDERS


def all_shipped(folder: str, suffix: str) -> dict[str, Path]:
    """name -> file of everything in the folders of that name, such as ``configs`` and ``weights``, of all rooms."""
    return {path.stem: path for room in FOLDERS for path in sorted((room / folder).glob(f"*{suffix}"))}


def shipped(argument: str, word: str, folder: str, suffix: str) -> Path:
    """A path, the name of a file that comes with the package, or weights on the hub as ``hub:OWNER/NAME``."""
    if folder == "weights" and word.startswith(PREFIX):
        return fetched(argument, word)
    path, known = Path(word), all_shipped(folder, suffix)
    try:
        there = path.exists()
    except OSError:  # longer than a name can be
        there = False
    if not there and word in known:
        return known[word]
    if not there:
        from .files import InputError

        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"{argument}: no file is called {word!r}, and none of the shipped ones ({names}).")
    return path
