"""Measure a trained model: the task of its configuration, its weights, one table of figures."""

from __future__ import annotations

from pathlib import Path

import torch

from jiio.checks import check_instance, fail
from jiio.outputs.atomic import write_whole
from jiio.outputs.seeds import derive

from .checkpoint import Checkpoint
from .config import RunConfig
from .dealing import dealing
from .files import InputError, as_path, check_output_folder
from .machine import check_device, cpu_threads
from .ranks import LONG, joined
from .task import AbstractTask, build_task, check_described, overrides


def evaluate(
    checkpoint: Checkpoint,
    *,
    config: RunConfig | None = None,
    data_root: str | Path | None = None,
    task: AbstractTask | None = None,
    pictures: str | Path | None = None,
) -> list[dict[str, str | float]]:
    """The rows of ``task.evaluate``.

    checkpoint: a training, see :func:`load`. data_root: the folder of data sets; None for what the environment variable
    ``JIIO_DATA`` says. config: other data, corruption or solve settings than the training's; the model must stay the
    same. task: instead of the one the configuration names. pictures: a folder for those that the task makes.

    Started by a launcher, every process gets the rows; tasks divide what they measure by :func:`.dealing.dealt`.

    Errors: ArgumentTypeError for what is no checkpoint; JiioError where data are missing, the weights do not fit, or
    the task makes no pictures.
    """
    check_instance("checkpoint", checkpoint, Checkpoint, "Read one by jiio.tasks.load(...).")
    config = config or checkpoint.config
    with joined(config.device, LONG) as ranks:
        device = check_device(config.device)
        check_described(checkpoint, task)
        root = None if data_root is None else as_path("data_root", data_root)
        task = task or build_task(config, data_root=root)
        folder = None if pictures is None else as_path("pictures", pictures)
        check_pictures(task, folder)

        with cpu_threads(config.threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(config.seed, "evaluate"))
            model = checkpoint.network(task.model)
            with dealing(ranks):
                rows = task.evaluate(model.to(device).eval())
            # One rank draws: the others have nothing left to do.
            if folder is not None and ranks.leads:
                for name, picture in task.pictures(model).items():
                    write_whole(folder / name, picture)
            return rows


def check_pictures(task: AbstractTask, folder: Path | None) -> None:
    """Nothing where pictures are not asked for, or can be made and written."""
    if folder is None:
        return
    check_output_folder("--pictures", folder)
    if not overrides(type(task), "pictures"):
        came = f"{task.config.task}, which makes none"
        fail("--pictures", "a task that makes pictures", came, error=InputError)
