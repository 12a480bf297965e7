"""Models that a function of the caller's makes: what a file says of them, and when a file's word is followed.

The function stands at an import path, and to import is to run: it is done where the caller of ``load`` has named it.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import ArgumentTypeError, CheckpointError, fail
from .bounds import difference, not_finite
from .equilibrium import EquilibriumModel
from .parts import Origin
from .plain import PATH, is_allowed, line, refuse


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """name -> parameter or buffer, each once: parts that share a module have its weights under several names."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        found.setdefault(id(value), (name, value.detach()))
    return dict(found.values())


def check_origin(origin: Origin, model: EquilibriumModel) -> str:
    """The path, held to it that it leads to a function that makes a model of these shapes.

    Errors: CheckpointError.
    """
    if not PATH.fullmatch(origin.path):
        fail("origin", "an import path such as package.module:name", repr(origin.path), error=CheckpointError)
    try:
        other = _made(origin.path)
        problem = difference(_shapes(weights(other)), _shapes(weights(model)))
    except Exception as error:  # whatever a module of somebody else raises
        problem = f"{type(error).__name__}: {line(error)}"
    if problem:
        expected, came = "an origin that makes this model again", f"{origin.path!r} ({problem})"
        fail("origin", expected, came, "Put the function at the top of a module.", CheckpointError)
    return origin.path


def follow(name: str, path: Path, tensors: Mapping[str, Tensor], allow: tuple[str, ...]) -> EquilibriumModel:
    """The model of a file with these tensors whose origin has this name. Errors: CheckpointError."""
    if not PATH.fullmatch(name):
        refuse(path, f"an origin that is no import path, {name[:100]!r}")
    if not is_allowed(name, allow):
        came = f"a model that the function {name!r} makes, which is not one of jiio's; nothing was imported"
        refuse(path, came, f"Where you trust the code of that module, pass allow=({name!r},).")
    try:
        model = _made(name)
    except Exception as error:
        refuse(path, f"an origin {name!r} that makes no model ({type(error).__name__}: {line(error)})")

    own = weights(model)
    if problem := difference(_shapes(own), _shapes(tensors)) or not_finite(tensors):
        refuse(path, problem)
    if tensors:
        model.to(next(iter(tensors.values())).dtype)
    model.load_state_dict(dict(tensors), strict=False)  # of names that share their weights the file has one
    model.config = Origin(name)
    return model


def configured(model: EquilibriumModel, options: Mapping[str, Any]) -> EquilibriumModel:
    """With these solve settings in place of those that its function gave it."""
    known = {entry.name for entry in dataclasses.fields(model.settings)}
    for name, value in options.items():
        if name not in known:
            fail("load", "the options " + ", ".join(sorted(known)), name, error=ArgumentTypeError)
        setattr(model, name, value)
    return model


def _made(path: str) -> EquilibriumModel:
    """What the function makes; the random state is left alone."""
    module, _, name = path.partition(":")
    with torch.random.fork_rng(devices=[]):
        model = getattr(importlib.import_module(module), name)()
    if not isinstance(model, EquilibriumModel):
        raise TypeError(f"it makes a {type(model).__name__}, not an EquilibriumModel")
    return model


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}
