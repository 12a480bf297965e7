"""Tensors and a description in one safetensors file, with a checksum over both; what is damaged is never believed.

The description is JSON under the key ``jiio`` of the file's metadata. One key, because the order of several would
differ from run to run: the same content gives the same bytes. No pickle is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jiio.checks import CheckpointError, JiioError, fail
from jiio.models.files import looks_like_pickle
from jiio.outputs.atomic import write_whole
from jiio.outputs.digest import checksum

from .files import check_file, reason

MAX_BYTES = 64 << 30
KIND = "a checkpoint of jiio (safetensors)"
UNUSABLE = (JiioError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError)
# What a description may hold. Another key is damage: a bit flipped in the word `digest` must not switch it off.
KEYS = {"step", "config", "versions", "handed", "digest"}


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write contiguous CPU tensors that share no memory, and a description that JSON can say."""
    from safetensors.torch import save as to_bytes

    sealed = {**about, "digest": checksum(tensors, _words(about))}
    write_whole(path, to_bytes(dict(tensors), metadata={"jiio": json.dumps(sealed)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the description without the checksum.

    Files without one, as they were written before there was any, are read on trust.

    Errors: CheckpointError where the file is damaged, of another kind, or not what was written; InputError where it
    cannot be opened.
    """
    check_file("checkpoint", path, KIND, MAX_BYTES)
    tensors, text = _content(path)
    about = _description(path, text)

    written = about.pop("digest", None)
    if written is not None and written != checksum(tensors, _words(about)):
        raise _damaged(path, "its checksum differs")
    return tensors, about


def configured(path: Path) -> dict[str, Any]:
    """The configuration in a file, without its tensors, whose checksum is not looked at: for help and options.

    Errors: whatever a stranger's file brings up, see :data:`UNUSABLE`.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["jiio"])["config"]


def _content(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors and the text of the description, whatever it says."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            head = file.read(9)
        if looks_like_pickle(head):
            remedy = "A pickle can run any code when it is opened, so jiio reads safetensors only."
            fail("checkpoint", KIND, f"{path}, a pickle", remedy, CheckpointError)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("jiio")
            # Copies: what the library returns is the file itself, mapped, and changes when somebody writes into it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, reason(error)) from error
    if text is None:
        raise foreign(path)
    return tensors, text


def _description(path: Path, text: str) -> dict[str, Any]:
    """What the text says, where it has the form of a description."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise foreign(path) from error
    if not isinstance(about, dict) or not about.keys() <= KEYS:
        raise foreign(path)
    return about


def _words(about: Mapping[str, Any]) -> str:
    """The description in the one form that it has before it is written and after it was read."""
    return json.dumps(json.loads(json.dumps(about)), sort_keys=True)


def _damaged(path: Path, why: str) -> CheckpointError:
    words = f"checkpoint: {path} is damaged or not a checkpoint ({why})."
    return CheckpointError(f"{words} Use the checkpoint before it, or train again.")


def foreign(path: Path) -> CheckpointError:
    """The error for a safetensors file that says nothing, or nothing that can be understood, of a training."""
    return CheckpointError(f"checkpoint: {path} is a safetensors file, but not one written by jiio train.")
