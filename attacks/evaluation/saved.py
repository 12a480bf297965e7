"""What an evaluation has done so far, in a folder: one file per batch, each whole or not there.

A killed evaluation goes on at the first batch without a file. Processes that share the batches share the folder, each
under a lock of its own. The terms of the evaluation (weights, threat, attacks,
seed) are written beside them; a folder that belongs to another one is refused and left as it was, and so is one in
which another evaluation is at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jiio.checks import CheckpointError, fail
from jiio.outputs import lock
from jiio.outputs.atomic import PART, remove_parts, write_whole
from jiio.outputs.digest import fingerprint

from .provenance import now
from .records import Entry
from .shards import Shard

FORMAT = "jiio-evaluation-1"
TERMS = "settings.json"
SHARD = re.compile(r"shard-\d+-of-\d+")


@contextlib.contextmanager
def saved(folder: Path | None, terms: Mapping[str, Any], part: Shard = Shard()) -> Iterator[Saved]:  # noqa: B008
    """The entries of the evaluation with these terms, its folder held against others meanwhile; None keeps nothing.

    part: of several processes, each of which holds a folder of its own name inside.

    Errors: CheckpointError where the folder is another's or cannot be used; those of :func:`jiio.outputs.lock.locked`.
    """
    if folder is None:
        yield Saved(None)
        return
    about = json.loads(json.dumps({"format": FORMAT, **terms}))
    alone = part.count == 1

    _check(folder, about)  # before the lock, which is a file: what is refused stays untouched
    with lock.locked(folder if alone else folder / part.name, "state_path"):
        _check(folder, about)  # and under it: somebody may have begun in the meantime
        if alone and not any(SHARD.fullmatch(path.name) for path in folder.iterdir()):
            remove_parts(folder)  # where there are others, they may be at work on theirs
        yield Saved(folder, _begun(folder, about))


class Saved:
    """The entries of one evaluation, by name; keeps nothing where ``folder`` is None. begun: when it first was."""

    def __init__(self, folder: Path | None, begun: str | None = None) -> None:
        self.folder, self.begun = folder, begun or now()

    def load(self, name: str, data: str) -> Entry | None:
        """What was saved under ``name`` for the data with this fingerprint, or None. Errors: CheckpointError."""
        path = self._path(name)
        if path is None or not path.exists():
            return None
        entry = _read(path)

        if entry.words.pop("data", None) != data:
            remedy = "Pass the same batches in the same order, without shuffling, or name a new folder."
            fail("batches", f"the data that {path.name} was made from", "other data", remedy, CheckpointError)
        return entry

    def save(self, name: str, data: str, entry: Entry) -> None:
        """Keep an entry; it appears whole or not at all. Errors: CheckpointError."""
        path = self._path(name)
        if path is None:
            return
        from safetensors.torch import save as to_bytes

        flat = {key: value.detach().cpu().contiguous() for key, value in entry.tensors.items()}
        words = json.dumps({"data": data, **entry.words})
        try:
            write_whole(path, to_bytes(flat, {"json": words, "sum": _sum(flat, words)}))
        except OSError as error:
            fail("state_path", "a folder to write to", f"{path} ({error.strerror})", error=CheckpointError)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.safetensors"


def _read(path: Path) -> Entry:
    """An entry as it was written, or CheckpointError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told = file.metadata() or {}

        # A flipped bit, or another hand, leaves a file that opens.
        if told["sum"] != _sum(tensors, told["json"]):
            raise ValueError("its checksum is another")
        return Entry(tensors, dict(json.loads(told["json"])))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        came = "no checksum" if isinstance(error, KeyError) else str(error)
        fail("state_path", "complete files", f"{path} ({came})", "Remove it to run it anew.", CheckpointError)


def _sum(tensors: dict[str, Tensor], words: str) -> str:
    """A hash of everything in a file."""
    told = [f"{name} {fingerprint(tensors[name])}" for name in sorted(tensors)]
    return hashlib.sha256("\n".join([*told, words]).encode()).hexdigest()[:16]


def _check(folder: Path, about: dict[str, Any]) -> None:
    """Raise CheckpointError unless the folder is missing, free, or that of the evaluation with these terms."""
    try:
        if not folder.exists():
            return
        names = [path.name for path in folder.iterdir()]
        if TERMS in names:
            _same(folder, json.loads((folder / TERMS).read_text(encoding="utf-8")), about)

        # What a killed evaluation was writing as its very first file does not make the folder somebody's.
        elif any(name != lock.NAME and not PART.fullmatch(name) and not SHARD.fullmatch(name) for name in names):
            remedy = "Name a new folder."
            fail("state_path", "an empty folder or one of an evaluation", f"{folder}", remedy, CheckpointError)
    except (OSError, ValueError, RecursionError) as error:
        fail("state_path", "a folder to write to", f"{folder} ({error})", error=CheckpointError)


def _same(folder: Path, old: Any, new: dict[str, Any]) -> None:
    for key in new:
        if not isinstance(old, dict) or old.get(key) != new[key]:
            was = old.get(key) if isinstance(old, dict) else old
            remedy = "Name a new folder, or repeat the evaluation it belongs to."
            came = f"{key} {was!r} in {folder}, but {new[key]!r} here"
            fail("state_path", "the folder of this very evaluation", came, remedy, CheckpointError)


def _begun(folder: Path, about: dict[str, Any]) -> str:
    """When the evaluation was begun; where that is now, its terms are written."""
    path = folder / TERMS
    try:
        # Of processes that begin at once, one writes it, and all read what stands there.
        if not path.exists():
            text = json.dumps({**about, "begun": now()}, sort_keys=True, indent=1)
            with contextlib.suppress(FileExistsError):
                write_whole(path, text.encode(), replace=False)
        return str(json.loads(path.read_text(encoding="utf-8")).get("begun", ""))
    except OSError as error:
        fail("state_path", "a folder to write to", f"{folder} ({error.strerror})", error=CheckpointError)
