"""Models on disk: one safetensors file, the weights as tensors, the configuration as JSON in its metadata. No pickle.

The solve settings (solver, tolerance, ...) are not part of the file: how an equilibrium is found is the caller's
choice, not the model's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..checks import CheckpointError, check_instance, fail
from ..outputs.atomic import write_whole
from .bounds import Held, difference, not_finite, unusable
from .build import ModelConfig, build
from .equilibrium import EquilibriumModel
from .origins import check_origin, configured, follow, weights
from .parts import Origin
from .plain import check_allow, decode, encode_checked, line, read_mapping, refuse

FORMAT, VERSION = "jiio-model", "1"
HEADER_LIMIT = 16 * 2**20  # bytes; the largest preset needs about 30 thousand


def save(model: EquilibriumModel, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``: first under a temporary name beside it, so that ``path`` never holds half a file.

    The model must come from :func:`jiio.models.build` (or ``classifier``, ``decoder``, ``load``), or from
    :meth:`EquilibriumModel.of` with an ``origin``. A cell configuration of the caller's own is named by its import
    path, and so is an origin. Raises ArgumentTypeError for what is no :class:`EquilibriumModel`, CheckpointError where
    the model has no configuration or one that could not be read again, and where the file cannot be written.
    """
    check_instance("model", model, EquilibriumModel)
    metadata = {"format": FORMAT, "version": VERSION, **_about(model)}

    to_bytes = _safetensors().save
    tensors = {name: value.cpu().contiguous() for name, value in weights(model).items()}
    target = Path(path)
    try:
        write_whole(target, to_bytes(tensors, metadata), parents=False)
    except OSError as error:
        fail("path", "a file that can be written", f"{str(target)!r} ({error.strerror})", error=CheckpointError)


def _about(model: EquilibriumModel) -> dict[str, str]:
    """What a file says about how to build the model, held to it that it can be done."""
    if isinstance(model.config, Origin):
        return {"origin": check_origin(model.config, model)}
    if not isinstance(model.config, ModelConfig):
        remedy = "Build it with jiio.models.build(config), or EquilibriumModel.of(..., origin='package.module:name')."
        fail("model", "a model that knows its configuration", "one put together by hand", remedy, CheckpointError)
    return {"config": encode_checked(model.config)}


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    allow: Collection[str] = (),
    **options: Any,
) -> EquilibriumModel:
    """The model in the file ``path``, in eval mode; ``options`` are the solve settings of :class:`EquilibriumModel`.

    device: where its weights go. allow: what the file may have imported besides jiio's own cells, by the name of a
    class or of the function that makes the model ("package.module:Name"), of a module, or of a package; importing runs
    code, so name only what you trust.

    Raises ArgumentTypeError for unusable arguments, CheckpointError, with a sentence, for anything that is not a
    complete file written by :func:`save`. Nothing in the file is executed, the random state is left alone, and nothing
    larger than the file is built.
    """
    target, allow = Path(path), check_allow(allow)
    _check_header(target)
    with _opened(target) as file:
        if "origin" in (about := file.metadata() or {}):
            _check_format(target, about)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            made = follow(about["origin"], target, tensors, allow)
            return configured(made, options).to(device).eval()

        # The header has names, shapes and types: weights are read when they are known to fit.
        bare = _skeleton(target, file, allow)
        tensors = {name: file.get_tensor(name) for name in bare.state_dict()}

    if problem := not_finite(tensors):
        refuse(target, problem)
    bare.load_state_dict(tensors, assign=True)
    if left := [name for name, value in bare.named_buffers() if value.is_meta]:
        refuse(target, f"a cell with the buffer {left[0]!r}, which is in no file", "Register it as persistent.")
    model = EquilibriumModel(bare.inject, bare.cell, bare.head, config=bare.config, **options)
    return model.to(device).eval()


def _skeleton(path: Path, file: Any, allow: tuple[str, ...]) -> EquilibriumModel:
    """The model that the file says, without numbers, held against the tensors in its header."""
    metadata = file.metadata() or {}
    _check_format(path, metadata)
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    bare = _built(path, metadata.get("config", ""), Held.of(shapes.values()), allow)

    problem = difference({name: value.shape for name, value in bare.state_dict().items()}, shapes)
    if problem := problem or unusable(part.get_dtype() for part in slices.values()):
        refuse(path, problem)
    return bare


def _built(path: Path, text: str, held: Held, allow: tuple[str, ...]) -> EquilibriumModel:
    """What the configuration says, and no larger than what the file holds."""
    content = read_mapping(text, path)
    try:
        held.check_numbers("config", content)
        config = decode(content, path, allow)
        with held.building():
            return build(config)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        refuse(path, f"a configuration that makes no model ({type(error).__name__}: {line(error)})")


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

    # The header comes from a stranger, and so does its length.
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length < 2:
        refuse(path, "not a safetensors file")
    if length > HEADER_LIMIT:
        refuse(path, f"a header of {length} bytes, where {HEADER_LIMIT} is the most")
    if length > size - 8:
        refuse(path, f"a truncated file ({size} bytes, but a header of {length})")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, mapped into memory; CheckpointError for what safetensors finds wrong with it."""
    from safetensors import SafetensorError, safe_open

    _safetensors()
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        refuse(path, f"a damaged or truncated file ({line(error)})")


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        refuse(path, f"a safetensors file of another kind (format {metadata.get('format', 'not named')!r})")
    if metadata.get("version") != VERSION:
        refuse(path, f"version {metadata.get('version')!r} of the format, where this release reads {VERSION!r}")
