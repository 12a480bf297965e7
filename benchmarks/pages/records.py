"""Records: the files that benchmarks and ``jiio ... --json`` wrote, kept beside the pages that cite them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jiio.checks import fail
from jiio.outputs.atomic import write_whole
from jiio.tasks.frame.files import InputError, read_bytes

HOME = Path(__file__).parents[2] / "docs" / "results" / "figures"
LIMIT = 64 << 20  # bytes of a file that is read
PLACES = ("--output", "--cache", "--data-root")  # options that say where, not what
NUMBER = re.compile(r"(?<![\w./])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w/])")  # no part of 8/255 or 64x64


def read(path: Path) -> dict[str, Any]:
    """What a run wrote. Errors: InputError, where the file holds something else."""
    what, remedy = "the JSON that a benchmark or `jiio ... --json` wrote", "Name the file of its --output."
    try:
        found = json.loads(read_bytes("FILE", path, what, LIMIT))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not any(True for _ in figures(found)):
        fail("FILE", what, f"{path}, which holds something else", remedy, InputError)
    return found


def keep(path: Path, name: str, home: Path = HOME) -> Path:
    """Lay the file of figures at ``path`` into ``home`` under ``name``; where it stands now."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        fail("--as", "small letters, digits and hyphens", repr(name), "Name it for its question.", InputError)
    found = read(path)
    if isinstance(found.get("settings"), dict) and "command" not in found:
        remedy = "Let the same command end first."
        fail("FILE", "the figures of a run that has ended", f"{path}, which one left", remedy, InputError)

    # Where a run happened to write is nobody's business; what it was told to measure is.
    found = _without_places(found)
    found.pop("wall_seconds", None)
    # Few figures, so that a wrong one on a page meets no other by chance: what was printed has the single rows in it,
    # and so have means over pictures.
    if found.get("printed") or found.get("mean"):
        found.pop("rows", None)
    to = home / f"{name}.json"
    write_whole(to, json.dumps(found, indent=1).encode() + b"\n")
    return to


def known(names: Iterable[str], home: Path = HOME) -> list[float]:
    """All figures of some records. Errors: InputError, where one is missing."""
    found = [read(home / f"{name}.json") for name in names]
    return [figure for record in found for figure in figures(record.get("printed", record))]


def _without_places(found: Any) -> Any:
    """A copy in which absolute paths are cut to their last part, and options that only say where are gone."""
    if isinstance(found, dict):
        return {_bare(key): _without_places(entry) for key, entry in found.items()}
    if isinstance(found, list):
        places = {i for i, entry in enumerate(found) if entry in PLACES}
        return [_without_places(entry) for i, entry in enumerate(found) if not places & {i, i - 1}]
    return _bare(found) if isinstance(found, str) else found


def _bare(text: str) -> str:
    return re.sub(r"(?<![\w.])/(?:[\w.-]+/)+([\w.-]+)", r"\1", text)


def figures(found: Any) -> Iterator[float]:
    """Every number of a record, in what it printed as in its rows."""
    if isinstance(found, dict):
        for entry in found.values():
            yield from figures(entry)
    elif isinstance(found, list):
        for entry in found:
            yield from figures(entry)
    elif isinstance(found, str):
        yield from (value(word) for word in NUMBER.findall(found))
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        yield float(found)


def value(word: str) -> float:
    """A number as pages and tables write it."""
    return float(word.replace(",", "").replace("−", "-"))
