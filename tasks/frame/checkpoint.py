"""Checkpoints: one safetensors file with weights, optimiser state, step, configuration and versions.

Tensors are named ``model.<name>`` and ``optimiser.<parameter>:<entry>``; the rest is JSON in the file's metadata.
A file appears whole or not at all, so a run that dies at any moment leaves its last two steps; and it carries a
checksum, so that what a disk has spoilt since is not believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from jiio.checks import CheckpointError, JiioError, fail

from . import sealed
from .bounds import bounded, check_usable, check_weights
from .config import RunConfig
from .files import InputError, as_path, reason
from .hub import PREFIX, fetched
from .load import build, flatten
from .machine import versions
from .paths import only
from .place import BEST, CHECKPOINTS
from .registry import config_class
from .shipped import all_shipped

Network = TypeVar("Network", bound=nn.Module)
AVERAGE = "average."  # before the name of an averaged weight
STEP = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training at the end of ``step`` steps.

    path: the file. step: number of steps done. config: that of the training. tensors: by name, on the CPU. versions: of
    the software that wrote it. handed: the class of the task object that the training was handed, None where its
    configuration names the task.
    """

    path: Path
    step: int
    config: RunConfig
    tensors: dict[str, Tensor]
    versions: dict[str, Any]
    handed: str | None = None

    def network(self, make: Callable[[], Network]) -> Network:
        """What ``make`` builds from this configuration, with these weights.

        The file may be a stranger's: what it asks for is bounded by what it brings while ``make`` runs.
        Errors: CheckpointError.
        """
        weights = self.named("model.").values()
        kinds = [t.dtype for t in weights if t.is_floating_point()]
        with bounded(self.path, weights), default_type(kinds[0] if kinds else torch.float32):
            model = make()
        self.restore_model(model, averaged=True)
        return model

    def restore_model(self, model: nn.Module, *, averaged: bool = False) -> None:
        """Load the weights into ``model``, in place. averaged: their moving average, where the training kept one.

        Errors: CheckpointError where they do not fit, or are not finite floating-point numbers.
        """
        weights = self.named("model.") | (self.named(AVERAGE) if averaged else {})
        check_weights(self.path, model, weights)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"checkpoint: the weights in {self.path} do not fit the model of its configuration ({reason(error)})."
            ) from error

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``, without it."""
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}

    def write(self, path: Path) -> None:
        """Into a file, whole or not at all."""
        about = {"step": self.step, "config": dataclasses.asdict(self.config), "versions": self.versions}
        if self.handed is not None:
            about["handed"] = self.handed
        sealed.write(path, self.tensors, about)

    def restore_optimiser(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Load the state of the optimiser of ``model.parameters()``, in place. Errors: CheckpointError."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, (name, parameter) in enumerate(model.named_parameters()):
            entries = self.named(f"optimiser.{name}:")
            for key, tensor in entries.items():
                check_usable(self.path, f"optimiser.{name}:{key}", tensor, finite=False)
                # A count of steps, or something for each weight (Adam's moments).
                if tensor.ndim and tensor.shape != parameter.shape:
                    expected, came = f"a state of shape {tuple(parameter.shape)} for {name!r}", tuple(tensor.shape)
                    fail("checkpoint", expected, f"{came} in {self.path}", error=CheckpointError)
            if entries:
                state[index] = {key: t.clone() for key, t in entries.items()}

        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextlib.contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    """New tensors have this type, whatever the program around has chosen: weights stay what they are in their file."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def save(path: Path, *what: Any, **more: Any) -> Checkpoint:
    """Write what :func:`made` makes of these arguments, and return it."""
    done = made(path, *what, **more)
    done.write(path)
    return done


def made(
    path: Path,
    step: int,
    config: RunConfig,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    *,
    handed: str | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """A checkpoint, or the bare weights where there is no optimiser, not written yet. extra: other tensors."""
    found = {**_state(model, optimiser), **(extra or {})}
    # A copy each: safetensors wants contiguous tensors that share no memory.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in found.items()}
    return Checkpoint(path, step, config, tensors, versions(), handed)


def _state(model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Weights and buffers, and what the optimiser keeps of each parameter, by the names they have in the file."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    if optimiser is not None:
        for name, parameter in model.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}:{key}"] = value
    return tensors


def load(path: str | Path, *, allow: Iterable[str] = ()) -> Checkpoint:
    """Read a checkpoint file, or of the folder of a training the best one, where it was validated, else the last.

    path: file, folder, the name of weights that come with jiio, such as ``"restore-faces"``, or of some on the hub, as
    ``"hub:OWNER/NAME@v1"``. allow: import paths, modules or packages of one's own that the file may name; others are
    not followed.

    Errors: InputError for what is no path; CheckpointError where the file is missing, damaged, of another kind, or of
    an unknown configuration.
    """
    path, ours = as_path("path", path), all_shipped("weights", ".safetensors")
    if str(path).startswith(PREFIX):
        path = fetched("path", str(path))
    elif str(path) in ours and not path.exists():
        path = ours[str(path)]
    if path.is_dir():
        found = [path / BEST] if (path / BEST).is_file() else checkpoints(path)
        if not found:
            fail("checkpoint", "a folder with checkpoints", f"{path} without any", error=CheckpointError)
        path = found[-1]
    tensors, about = sealed.read(path)
    config = _config(path, about, allow)

    # Whoever changed the description may have put anything there.
    step, wrote, handed = about.get("step"), about.get("versions", {}), about.get("handed")
    if type(step) is not int or not 0 <= step <= config.steps:
        raise sealed.foreign(path)
    if not isinstance(wrote, dict) or not isinstance(handed, str | None):
        raise sealed.foreign(path)
    return Checkpoint(path, step, config, tensors, wrote, handed)


def _config(path: Path, about: dict[str, Any], allow: Iterable[str]) -> RunConfig:
    """The configuration in a description; what is no configuration at all is told from one that cannot be used."""
    try:
        with only(allow):
            return build(config_class(about["config"]), about["config"])
    except JiioError as error:
        raise CheckpointError(f"checkpoint: the configuration in {path} cannot be used; {error}") from error
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise sealed.foreign(path) from error


def name_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint after ``step`` steps."""
    return folder / f"step-{step:08d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; bare weights are not among them."""
    numbered = [(STEP.fullmatch(path.name), path) for path in folder.glob(CHECKPOINTS)]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match is not None)]


def load_newest(folder: Path, report: Any, *, allow: Iterable[str] = ()) -> Checkpoint | None:
    """The newest checkpoint in a folder that can be read, None where there is none.

    A damaged or empty file, which only a failing disk can leave, is reported and passed over; where all are damaged, it
    is an error, because to begin again silently would throw the training away.
    """
    problem: JiioError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            return load(path, allow=allow)
        except (CheckpointError, InputError) as error:
            report(str(error))
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def prune(folder: Path, keep: int, newest: Path) -> None:
    """Remove all but the last ``keep`` checkpoints up to the newest.

    Beyond it there are only damaged ones, which were passed over when the training was resumed.
    """
    found = checkpoints(folder)
    last = found.index(newest) + 1
    for path in (*found[: max(0, last - keep)], *found[last:]):
        path.unlink(missing_ok=True)


def differing(config: RunConfig, other: RunConfig, free: Iterable[str]) -> str:
    """The first key in which two configurations differ, with both values; empty where they agree."""
    a, b = flatten(dataclasses.asdict(config)), flatten(dataclasses.asdict(other))
    for key in sorted(a.keys() | b.keys()):
        if key.partition(".")[0] not in free and a.get(key) != b.get(key):
            return f"{key} is {b.get(key)!r} there and {a.get(key)!r} here"
    return ""
