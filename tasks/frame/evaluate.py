"""Measure a trained model: the task of its configuration, its weights, one table of figures."""

from __future__ import annotations

from pathlib import Path

import torch

from jiio.checks import fail
from jiio.outputs.atomic import write_whole
from jiio.outputs.seeds import derive

from .checkpoint import Checkpoint
from .config import RunConfig
from .files import InputError, check_output_folder
from .machine import check_device, cpu_threads
from .task import AbstractTask, build_task, check_described, overrides


def evaluate(
    checkpoint: Checkpoint,
    *,
    config: RunConfig | None = None,
    data_root: Path | None = None,
    task: AbstractTask | None = None,
    pictures: Path | None = None,
) -> list[dict[str, str | float]]:
    """The rows of ``task.evaluate``.

    config: other data, corruption or solve settings than the training's; the model must stay the same. task: instead of
    the one the configuration names. pictures: a folder for those that the task makes.

    Errors: JiioError where data are missing, the weights do not fit, or the task makes no pictures.
    """
    config = config or checkpoint.config
    device = check_device(config.device)
    check_described(checkpoint, task)
    task = task or build_task(config, data_root=data_root)
    draws = overrides(type(task), "pictures")
    if pictures is not None:
        check_output_folder("--pictures", pictures)
        if not draws:
            fail("--pictures", "a task that makes pictures", f"{config.task}, which makes none", error=InputError)
    with cpu_threads(config.threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(config.seed, "evaluate"))
        model = checkpoint.network(task.model)
        rows = task.evaluate(model.to(device).eval())
        if pictures is not None:
            for name, picture in task.pictures(model).items():
                write_whole(pictures / name, picture)
        return rows
