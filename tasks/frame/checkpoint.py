"""Checkpoints: one safetensors file with weights, optimiser state, step, configuration and versions.

Tensors are named ``model.<name>`` and ``optimiser.<parameter>.<entry>``; the rest is JSON in the file's metadata.
No pickle is ever read. A file appears whole or not at all, so a run that dies at any moment leaves its last two steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import CheckpointError, JiioError, fail
from jiio.models.files import looks_like_pickle
from jiio.outputs.atomic import remove_parts, write_whole

from .config import RunConfig
from .files import check_file, reason
from .load import build, flatten
from .machine import versions
from .paths import only
from .registry import config_class

MAX_BYTES = 64 << 30
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training at the end of ``step`` steps.

    path: the file. step: number of steps done. tensors: by name, on the CPU. versions: of the software that wrote it.
    handed: the class of the task object that the training was handed, None where its configuration names the task.
    """

    path: Path
    step: int
    config: RunConfig
    tensors: dict[str, Tensor]
    versions: dict[str, Any]
    handed: str | None = None

    def restore_model(self, model: nn.Module) -> None:
        """Load the weights, in place."""
        weights = {name.removeprefix("model."): t for name, t in self.tensors.items() if name.startswith("model.")}
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"checkpoint: the weights in {self.path} do not fit the model of its configuration ({reason(error)})."
            ) from error

    def restore_optimiser(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Load the state of the optimiser of ``model.parameters()``, in place."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, (name, _) in enumerate(model.named_parameters()):
            prefix = f"optimiser.{name}:"
            entries = {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}
            if entries:
                state[index] = {key: t.clone() for key, t in entries.items()}
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def save(
    path: Path,
    step: int,
    config: RunConfig,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    *,
    handed: str | None = None,
) -> Checkpoint:
    """Write a checkpoint, or the bare weights where there is no optimiser, and return it."""
    from safetensors.torch import save as to_bytes

    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    if optimiser is not None:
        for name, parameter in model.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}:{key}"] = value
    # A copy each: safetensors wants contiguous tensors that share no memory.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    about = {"step": step, "config": dataclasses.asdict(config), "versions": versions()}
    if handed is not None:
        about["handed"] = handed
    write_whole(path, to_bytes(tensors, metadata={"jiio": json.dumps(about)}))
    return Checkpoint(path, step, config, tensors, about["versions"], handed)


def load(path: Path, *, allow: Iterable[str] = ()) -> Checkpoint:
    """Read a checkpoint file, or the last one in the folder of a training.

    allow: import paths, modules or packages of one's own that the file may name; others are not followed.

    Errors: CheckpointError where the file is missing, truncated, of another kind, or of an unknown configuration.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        found = checkpoints(path)
        if not found:
            fail("checkpoint", "a folder with checkpoints", f"{path} without any", error=CheckpointError)
        path = found[-1]
    check_file("checkpoint", path, "a checkpoint of jiio (safetensors)", MAX_BYTES)
    with path.open("rb") as file:
        head = file.read(9)
    if looks_like_pickle(head):
        remedy = "A pickle can run any code when it is opened, so jiio reads safetensors only."
        fail("checkpoint", "a checkpoint of jiio (safetensors)", f"{path}, a pickle", remedy, CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["jiio"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        with only(allow):
            config = build(config_class(about["config"]), about["config"])
        step = int(about["step"])
    except (SafetensorError, OSError) as error:
        words = f"checkpoint: {path} is damaged or not a checkpoint ({reason(error)})."
        raise CheckpointError(f"{words} Use the checkpoint before it, or train again.") from error
    except JiioError as error:
        raise CheckpointError(f"checkpoint: the configuration in {path} cannot be used; {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint: {path} is a safetensors file, but not one written by jiio train."
        ) from error
    return Checkpoint(path, step, config, tensors, about.get("versions", {}), about.get("handed"))


def name_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint after ``step`` steps."""
    return folder / f"step-{step:08d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; bare weights are not among them."""
    return sorted(folder.glob("step-????????.safetensors"))


def load_newest(folder: Path, report: Any, *, allow: Iterable[str] = ()) -> Checkpoint | None:
    """The newest checkpoint in a folder that can be read, None where there is none.

    A damaged file, which only a failing disk can leave, is reported and passed over; where all are damaged, it is an
    error, because to begin again silently would throw the training away.
    """
    problem: CheckpointError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            return load(path, allow=allow)
        except CheckpointError as error:
            report(str(error))
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what killed writers left."""
    for path in checkpoints(folder)[:-keep]:
        path.unlink(missing_ok=True)
    remove_parts(folder)


def differing(config: RunConfig, other: RunConfig, free: Iterable[str]) -> str:
    """The first key in which two configurations differ, with both values; empty where they agree."""
    a, b = flatten(dataclasses.asdict(config)), flatten(dataclasses.asdict(other))
    for key in sorted(a.keys() | b.keys()):
        if key.partition(".")[0] not in free and a.get(key) != b.get(key):
            return f"{key} is {b.get(key)!r} there and {a.get(key)!r} here"
    return ""
