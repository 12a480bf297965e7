"""Weights of somebody else's model: a state dict in safetensors, or in a file of torch.save without any code in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_file, reason
from jiio.tasks.frame.terminal import say

MOST = 1 << 36  # bytes
INSIDE = ("state_dict", "model_state_dict", "model", "net")  # where trainings keep the weights among other things
BEFORE = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning write before each name


def fill(model: nn.Module, path: Path) -> None:
    """Load the weights in a file into the model, in place; every name and shape has to fit.

    Errors: InputError.
    """
    own = model.state_dict()
    found = unprefixed(read(path), own)
    missing, strange = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or strange:
        wrong = [
            f"{len(names)} {how} ({names[0]})" for names, how in ((missing, "missing"), (strange, "too many")) if names
        ]
        fail(
            "--weights", f"the {len(own)} entries of the model", f"{path} with {' and '.join(wrong)}", error=InputError
        )

    for name, value in found.items():
        if value.shape != own[name].shape:
            came = f"{tuple(value.shape)} in {path}"
            fail("--weights", f"{name} of shape {tuple(own[name].shape)}", came, error=InputError)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            fail("--weights", f"finite numbers in {name}", f"NaN or infinity in {path}", error=InputError)
    model.load_state_dict(found)


def read(path: Path) -> dict[str, Tensor]:
    """name -> tensor of a file. Errors: InputError."""
    check_file("--weights", path, "a file of weights", MOST)
    try:
        found = from_safetensors(path) if path.suffix == ".safetensors" else from_torch(path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file does to a reader
        fail("--weights", "a state dict", f"{path}, which cannot be read ({reason(error)})", error=InputError)
    if not found:
        fail("--weights", "a state dict", f"{path}, which holds no tensors by name", error=InputError)
    return found


def from_safetensors(path: Path) -> dict[str, Tensor]:
    """Of the format that holds nothing but tensors."""
    from safetensors.torch import load_file

    return load_file(path)


def from_torch(path: Path) -> dict[str, Tensor]:
    """Of torch.save, where it holds tensors and plain data alone; nothing in it is executed."""
    import pickle

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        remedy = "Save model.state_dict(); a whole model would run code when it is opened."
        fail("--weights", "a state dict", f"{path}, which holds more than tensors", remedy, InputError)

    for name in INSIDE:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            say(f"{path}: the weights are those under {name!r}.")
            content = content[name]
    if not isinstance(content, dict):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def unprefixed(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of the model, where something else wrote a word before each of them."""
    for word in BEFORE:
        if found.keys() != own.keys() and all(name.startswith(word) for name in found):
            say(f"The names of the weights begin with {word!r}, which is left out.")
            found = {name.removeprefix(word): value for name, value in found.items()}
    return found
