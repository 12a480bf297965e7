"""Records of tensors in one safetensors file: the tensors as such, what holds them together as JSON in the metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from .checks import CheckpointError, fail
from .outputs.atomic import write_whole

VERSION = "1"
HEADER_LIMIT = 2**20  # bytes


def flattened(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` with every tensor replaced by its name in ``tensors``, which is filled; other values stay."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            fail("Solution", "trees whose keys are words", "other keys", error=CheckpointError)
        return {"dict": {key: flattened(part, f"{name}.{key}", tensors) for key, part in value.items()}}
    if isinstance(value, (tuple, list)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flattened(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]}
    return {"plain": value}


def unflattened(said: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`flattened`."""
    ((kind, value),) = said.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: unflattened(part, tensors) for key, part in value.items()}
    if kind in ("list", "tuple"):
        parts = [unflattened(part, tensors) for part in value]
        return parts if kind == "list" else tuple(parts)
    return value


def write_record(path: str | os.PathLike[str], form: str, record: dict[str, Any]) -> None:
    """Write ``record`` to ``path``, whole or not at all; ``form``: what kind of record it is."""
    tensors: dict[str, Tensor] = {}
    said = json.dumps({key: flattened(value, key, tensors) for key, value in record.items()})
    data = _safetensors().save(tensors, {"format": form, "version": VERSION, "record": said})
    try:
        write_whole(Path(path), data, parents=False)
    except OSError as error:
        fail("path", "a file that can be written", f"{str(path)!r} ({error.strerror})", error=CheckpointError)


def read_record(path: str | os.PathLike[str], form: str) -> dict[str, Any]:
    """The record in the file ``path``; CheckpointError, in a sentence, for anything else. Nothing in it is executed."""
    target = Path(path)
    try:
        with open(target, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT or length > target.stat().st_size:
            _refuse(target, "not a safetensors file of that kind")
        _safetensors()
        from safetensors import safe_open

        with safe_open(str(target), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != form or metadata.get("version") != VERSION:
                _refuse(target, f"another format ({metadata.get('format', 'not named')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return {key: unflattened(part, tensors) for key, part in json.loads(metadata["record"]).items()}
    except CheckpointError:
        raise
    except OSError as error:
        _refuse(target, f"{error.strerror or 'unreadable'}")
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError) as error:
        _refuse(target, f"a damaged file ({type(error).__name__})")
    except Exception as error:  # safetensors' own, which is no subclass of anything
        if type(error).__name__ != "SafetensorError":
            raise
        _refuse(target, "a damaged or truncated file")


def _refuse(path: Path, came: str) -> NoReturn:
    fail("path", "a file written by Solution.save", f"{str(path)!r}: {came}", error=CheckpointError)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        fail("safetensors", "the package", "no such package", "Install it: pip install safetensors.", CheckpointError)
    return safetensors.torch
