"""What an evaluation has done so far, on disk: one file per batch, each whole or not there.

A killed evaluation goes on at the first batch without a file. What was evaluated (weights, threat, attacks, seed) is
written beside them, and a folder that belongs to another evaluation is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jiio.checks import CheckpointError, fail
from jiio.outputs.atomic import remove_parts, write_whole

from .records import Entry

FORMAT = "jiio-evaluation-1"


class State:
    """The folder of one evaluation; does nothing where ``folder`` is None."""

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        settings = {"format": FORMAT, **settings}
        text = json.dumps(settings, sort_keys=True, indent=1)
        named = folder / "settings.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_parts(folder)  # what a killed evaluation was writing, the settings included
            if named.exists():
                _same(folder, json.loads(named.read_text(encoding="utf-8")), json.loads(text))
            else:
                if any(folder.iterdir()):
                    remedy = "Name a new folder."
                    fail("state_path", "an empty folder or one of an evaluation", f"{folder}", remedy, CheckpointError)
                write_whole(named, text.encode())
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            fail("state_path", "a folder to write to", f"{folder} ({error})", error=CheckpointError)

    def load(self, name: str, data: str) -> Entry | None:
        """What was saved under ``name`` for the data with this fingerprint, or None."""
        path = self._path(name)
        if path is None or not path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt", device="cpu") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                words = json.loads((file.metadata() or {})["json"])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            fail("state_path", "complete files", f"{path} ({error})", "Remove it to run it anew.", CheckpointError)
        if words.pop("data") != data:
            remedy = "Pass the same batches in the same order, without shuffling, or name a new folder."
            fail("batches", f"the data that {path.name} was made from", "other data", remedy, CheckpointError)
        return Entry(tensors, words)

    def save(self, name: str, data: str, entry: Entry) -> None:
        """Keep a record; it appears whole or not at all."""
        path = self._path(name)
        if path is None:
            return
        from safetensors.torch import save as to_bytes

        flat = {key: value.detach().cpu().contiguous() for key, value in entry.tensors.items()}
        try:
            write_whole(path, to_bytes(flat, {"json": json.dumps({"data": data, **entry.words})}))
        except OSError as error:
            fail("state_path", "a folder to write to", f"{path} ({error.strerror})", error=CheckpointError)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.safetensors"


def _same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in new:
        if old.get(key) != new[key]:
            came = f"{key} {old.get(key)!r} in {folder}, but {new[key]!r} here"
            remedy = "Name a new folder, or repeat the evaluation it belongs to."
            fail("state_path", "the folder of this very evaluation", came, remedy, CheckpointError)
