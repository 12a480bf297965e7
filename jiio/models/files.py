"""Models on disk: one safetensors file, the weights as tensors, the configuration as JSON in its metadata. No pickle.

The solve settings (solver, tolerance, ...) are not part of the file: how an equilibrium is found is the caller's
choice, not the model's.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import CheckpointError, check_instance, fail
from ..outputs.atomic import write_whole
from .build import ModelConfig, build
from .equilibrium import EquilibriumModel
from .plain import check_allow, decode, encode_checked, line, read_mapping, refuse

FORMAT, VERSION = "jiio-model", "1"
HEADER_LIMIT = 16 * 2**20  # bytes; the largest preset needs about 30 thousand


def save(model: EquilibriumModel, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``: first under a temporary name beside it, so that ``path`` never holds half a file.

    The model must come from :func:`jiio.models.build` (or ``classifier``, ``decoder``, ``load``). A cell configuration
    of the caller's own is named by its import path. Raises CheckpointError where the model has no configuration or one
    that could not be read again, and where the file cannot be written.
    """
    check_instance("model", model, EquilibriumModel)
    if not isinstance(model.config, ModelConfig):
        remedy = "Build it with jiio.models.build(config)."
        fail("model", "a model that knows its configuration", "one put together by hand", remedy, CheckpointError)
    to_bytes = _safetensors().save
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = to_bytes(tensors, {"format": FORMAT, "version": VERSION, "config": encode_checked(model.config)})
    target = Path(path)
    try:
        write_whole(target, content, parents=False)
    except OSError as error:
        fail("path", "a file that can be written", f"{str(target)!r} ({error.strerror})", error=CheckpointError)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    allow: Collection[str] = (),
    **options: Any,
) -> EquilibriumModel:
    """The model in the file ``path``, in eval mode; ``options`` are the solve settings of :class:`EquilibriumModel`.

    allow: what the file may have imported besides jiio's own cells, by the name of a class ("package.module:Name"), of
    a module, or of a package; importing runs code, so name only what you trust.

    Raises CheckpointError, with a sentence, for anything that is not a complete file written by :func:`save`. Nothing
    in the file is executed, the random state is left alone.
    """
    target, allow = Path(path), check_allow(allow)
    _check_header(target)
    tensors, metadata = _read(target)
    if metadata.get("format") != FORMAT:
        refuse(target, f"a safetensors file of another kind (format {metadata.get('format', 'not named')!r})")
    if metadata.get("version") != VERSION:
        refuse(target, f"version {metadata.get('version')!r} of the format, where this release reads {VERSION!r}")
    config = decode(read_mapping(metadata.get("config", ""), target), target, allow)
    # On the meta device a model has shapes but no numbers: a file that promises a giant costs nothing before it is
    # refused.
    try:
        with torch.device("meta"):
            bare = build(config)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        refuse(target, f"a configuration that makes no model ({type(error).__name__}: {line(error)})")
    _check_tensors(target, tensors, bare)
    bare.load_state_dict(tensors, assign=True)
    model = EquilibriumModel(bare.inject, bare.cell, bare.head, config=config, **options)
    return model.to(device).eval()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        fail("safetensors", "the package", "no such package", "Install it: pip install safetensors.", CheckpointError)
    return safetensors.torch


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
        refuse(path, f"{error.strerror}")
    if looks_like_pickle(start):
        refuse(path, "a pickle, as torch.save writes; unpickling runs code, so it is never done here")
    if size < 9:
        refuse(path, f"{size} bytes")
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length < 2:
        refuse(path, "not a safetensors file")
    if length > HEADER_LIMIT:
        refuse(path, f"a header of {length} bytes, where {HEADER_LIMIT} is the most")
    if length > size - 8:
        refuse(path, f"a truncated file ({size} bytes, but a header of {length})")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata."""
    from safetensors import SafetensorError, safe_open

    _safetensors()
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        refuse(path, f"a damaged or truncated file ({line(error)})")


def _check_tensors(path: Path, tensors: dict[str, Tensor], model: EquilibriumModel) -> None:
    """Exactly the tensors of the model, in its shapes, in one floating-point dtype."""
    expected = model.state_dict()
    for problem, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has a stray", tensors.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            refuse(path, f"it {problem} tensor {min(names)!r}{more}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            refuse(path, f"{name!r} has shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        refuse(path, f"weights of {', '.join(sorted(str(d) for d in dtypes))}, not of one floating-point dtype")
