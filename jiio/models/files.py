"""Models on disk: one safetensors file, the weights as tensors, the configuration as JSON in its metadata. No pickle.

The solve settings (solver, tolerance, ...) are not part of the file: how an equilibrium is found is the caller's
choice, not the model's.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..checks import CheckpointError, JiioError, check_instance, fail
from ..outputs.atomic import write_whole
from .build import KINDS, ModelConfig, build
from .equilibrium import EquilibriumModel

FORMAT, VERSION = "jiio-model", "1"
HEADER_LIMIT = 16 * 2**20  # bytes; the largest preset needs about 30 thousand


def save(model: EquilibriumModel, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``: first under a temporary name beside it, so that ``path`` never holds half a file.

    The model must come from :func:`jiio.models.build` (or ``classifier``, ``decoder``, ``load``). Raises
    CheckpointError where it does not, or where the file cannot be written.
    """
    check_instance("model", model, EquilibriumModel)
    if not isinstance(model.config, ModelConfig):
        remedy = "Build it with jiio.models.build(config)."
        fail("model", "a model that knows its configuration", "one put together by hand", remedy, CheckpointError)
    to_bytes = _safetensors().save
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = to_bytes(tensors, {"format": FORMAT, "version": VERSION, "config": encode(model.config)})
    target = Path(path)
    try:
        write_whole(target, content, parents=False)
    except OSError as error:
        fail("path", "a file that can be written", f"{str(target)!r} ({error.strerror})", error=CheckpointError)


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu", **options: Any) -> EquilibriumModel:
    """The model in the file ``path``, in eval mode; ``options`` are the solve settings of :class:`EquilibriumModel`.

    Raises CheckpointError, with a sentence, for anything that is not a complete file written by :func:`save`. Nothing
    in the file is executed, and the random state is left alone.
    """
    target = Path(path)
    _check_header(target)
    tensors, metadata = _read(target)
    if metadata.get("format") != FORMAT:
        _refuse(target, f"a safetensors file of another kind (format {metadata.get('format', 'not named')!r})")
    if metadata.get("version") != VERSION:
        _refuse(target, f"version {metadata.get('version')!r} of the format, where this release reads {VERSION!r}")
    config = decode(metadata.get("config", ""), target)
    # On the meta device a model has shapes but no numbers: a file that promises a giant costs nothing before it is
    # refused.
    try:
        with torch.device("meta"):
            bare = build(config)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        _refuse(target, f"a configuration that makes no model ({type(error).__name__}: {_line(error)})")
    _check_tensors(target, tensors, bare)
    bare.load_state_dict(tensors, assign=True)
    model = EquilibriumModel(bare.inject, bare.cell, bare.head, config=config, **options)
    return model.to(device).eval()


def encode(config: ModelConfig) -> str:
    """The configuration as JSON."""
    kind = next(name for name, cls in KINDS.items() if type(config.cell) is cls)
    content = dataclasses.asdict(config)
    return json.dumps(content | {"cell": {"kind": kind, **content["cell"]}}, sort_keys=True)


def decode(text: str, path: Path) -> ModelConfig:
    """JSON -> configuration; CheckpointError where it is not one."""
    try:
        content = json.loads(text)
        cell = dict(content.pop("cell"))
        kind = KINDS[cell.pop("kind")]
        return ModelConfig(cell=kind(**_tuples(cell)), **_tuples(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, JiioError) as error:
        _refuse(path, f"a configuration that makes no model ({type(error).__name__}: {_line(error)})")


def _line(error: Exception) -> str:
    """The first line of a message, without its full stop."""
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        fail("safetensors", "the package", "no such package", "Install it: pip install safetensors.", CheckpointError)
    return safetensors.torch


def _refuse(path: Path, came: str) -> NoReturn:
    fail("path", "a complete model file written by jiio.models.save", f"{str(path)!r}: {came}", error=CheckpointError)


def looks_like_pickle(start: bytes) -> bool:
    """Whether the first nine bytes of a file are those of a pickle, or of the zip that ``torch.save`` writes.

    A safetensors file begins with the length of its header, whose lowest byte can be any; its ninth byte is "{".
    """
    return start[8:9] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80")


def _check_header(path: Path) -> None:
    """Refuse what is not a safetensors file before anything parses it.

    Eight bytes of length, then that many bytes of JSON.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        _refuse(path, f"{error.strerror}")
    if looks_like_pickle(start):
        _refuse(path, "a pickle, as torch.save writes; unpickling runs code, so it is never done here")
    if size < 9:
        _refuse(path, f"{size} bytes")
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length < 2:
        _refuse(path, "not a safetensors file")
    if length > HEADER_LIMIT:
        _refuse(path, f"a header of {length} bytes, where {HEADER_LIMIT} is the most")
    if length > size - 8:
        _refuse(path, f"a truncated file ({size} bytes, but a header of {length})")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata."""
    from safetensors import SafetensorError, safe_open

    _safetensors()
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        _refuse(path, f"a damaged or truncated file ({_line(error)})")


def _check_tensors(path: Path, tensors: dict[str, Tensor], model: EquilibriumModel) -> None:
    """Exactly the tensors of the model, in its shapes, in one floating-point dtype."""
    expected = model.state_dict()
    for problem, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has a stray", tensors.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            _refuse(path, f"it {problem} tensor {min(names)!r}{more}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            _refuse(path, f"{name!r} has shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        _refuse(path, f"weights of {', '.join(sorted(str(d) for d in dtypes))}, not of one floating-point dtype")
