"""Somebody else's classifier, as the command line names it: an import path, or a file that holds a whole model.

Who types an import path means their own code, and it is imported. Of files, TorchScript and torch.export are programs
as well; a pickle of a whole model is refused.
"""

from __future__ import annotations

import inspect
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import CheckpointError, JiioError, fail
from jiio.tasks.frame.files import InputError, check_file, reason
from jiio.tasks.frame.load import nearest
from jiio.tasks.frame.paths import PATH, allowed, import_path
from jiio.tasks.frame.terminal import say

from .options import OwnModel
from .weights import MOST, fill

WHOLE = "TorchScript, torch.export (.pt2), or what jiio.models.save writes"


def given_model(options: OwnModel) -> nn.Module:
    """The model that ``--model`` names, with its weights, in eval mode.

    Errors: InputError or ConfigError.
    """
    word = options.word
    if PATH.fullmatch(word):
        model = from_path(word, options.arguments)
        if options.weights is None:
            say(f"No --weights: the model is attacked as {word} makes it.")
    else:
        if options.arguments:
            fail("--model-options", "a class or function to pass them to", f"the file {word}", error=InputError)
        model = from_file(Path(word))
    if options.weights is not None:
        fill(model, options.weights)
    return model.eval()


def from_path(path: str, arguments: dict[str, Any]) -> nn.Module:
    """What stands at package.module:Name, called with the arguments unless it is a model already."""
    found = import_path(path, "--model")
    if isinstance(found, nn.Module):
        if arguments:
            fail(
                "--model-options", "a class or function to pass them to", f"{path}, a finished model", error=InputError
            )
        return found
    if not callable(found):
        fail("--model", "a class, a function or a model", f"{path}, a {type(found).__name__}", error=InputError)

    check_arguments(found, path, arguments)
    try:
        made = found(**arguments)
    except JiioError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything, a script may end
        came = f"{path}, which raised {type(error).__name__}: {reason(error)}"
        fail("--model", "a model to come of the call", came, "Its arguments go to --model-options.", InputError)
    if not isinstance(made, nn.Module):
        fail(
            "--model",
            "a torch.nn.Module to come of the call",
            f"{path}, which gave a {type(made).__name__}",
            error=InputError,
        )
    return made


def check_arguments(function: Callable[..., Any], path: str, arguments: dict[str, Any]) -> None:
    """Raise where a name is none of the function's, as far as it can be asked."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in arguments:
        if name not in known:
            remedy = nearest(name, known) if known else "It takes none."
            fail("--model-options", f"arguments of {path}", repr(name), remedy, InputError)


def from_file(path: Path) -> nn.Module:
    """A file that holds the model and its weights."""
    if path.suffix == ".py":
        remedy = f"Name what is in it: --model {path.stem}:Name."
        fail("--model", "an import path, or a file with a model", f"the program {path}", remedy, InputError)
    check_file("--model", path, f"package.module:Name or a file ({WHOLE})", MOST)
    if path.suffix == ".safetensors":
        return saved_model(path)
    read = {"export": exported, "script": scripted}.get(kind(path))
    if read is None:
        remedy = "A state dict goes to --weights beside --model package.module:Name."
        fail("--model", f"a file with a whole model ({WHOLE})", f"{path}", remedy, InputError)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both loaders speak of their successors
            return read(path)
    except Exception as error:  # a damaged archive
        fail("--model", "a complete file", f"{path}, which cannot be read ({reason(error)})", error=InputError)


def saved_model(path: Path) -> nn.Module:
    """What jiio.models.save wrote; code that it names is followed with ``--allow`` alone."""
    from jiio.models import load

    try:
        return load(path, allow=allowed(), on_failure="ignore")
    except CheckpointError as error:
        typed = " On the command line that is --allow package.module:name." if "allow=" in str(error) else ""
        raise InputError(f"--model, {error}{typed}") from error


def kind(path: Path) -> str:
    """Which kind of archive a file is: by its content, as all of them are called .pt at times."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return "other"
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return "export"
    return "script" if any(name.startswith("code/") for name in names) else "other"


def scripted(path: Path) -> nn.Module:
    """A TorchScript archive."""
    return torch.jit.load(path, map_location="cpu")


def exported(path: Path) -> nn.Module:
    """A program of torch.export, whose mode was fixed when it was made."""
    program = torch.export.load(path)
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs]
    batch = shapes[0][0] if shapes and len(shapes[0]) else None
    return Exported(program.module(), batch if isinstance(batch, int) else None)


class Exported(nn.Module):
    """A program that knows no modes. batch: of the only size of batch that it takes; None where it takes any."""

    def __init__(self, program: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.program, self.batch = program, batch

    def train(self, mode: bool = True) -> Exported:
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Any:
        if self.batch is None:
            return self.program(x)

        # The last part is filled up with copies of its last image, whose scores are thrown away.
        lack = -len(x) % self.batch
        whole = torch.cat([x, x[-1:].expand(lack, *x.shape[1:])]) if lack else x
        return torch.cat([self.program(part) for part in whole.split(self.batch)])[: len(x)]
