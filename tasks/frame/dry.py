"""One step of a training on two samples, to see that a recipe runs before a machine is rented for it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from jiio.checks import fail
from jiio.outputs.seeds import derive

from .config import RunConfig
from .files import InputError
from .machine import check_device, cpu_threads
from .post import Post
from .step import build_optimiser, training_step
from .task import build_task

SAMPLES = 2


def dry_run(config: RunConfig, *, resume: bool = False, data_root: Path | None = None) -> str:
    """Build the task and its model, take one step past the warm-up with batches of two, and write nothing.

    Returns: a sentence with the parameters, the loss and the seconds.

    Errors: JiioError, as a training would raise it, and where there is something to go on from or several processes.
    """
    if resume:
        fail("--dry-run", "a training that begins", "--resume beside it", error=InputError)
    if Post.of().count > 1:
        fail("--dry-run", "one process", f"WORLD_SIZE={Post.of().count}", error=InputError)
    small = of_two(config)
    task, device = build_task(small, data_root=data_root), check_device(small.device)

    # Past the warm-up, where there is one: it is the equilibrium that one wants to see.
    warm = getattr(getattr(small, "warm", None), "steps", 0)
    with cpu_threads(small.threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(small.seed, "model"))
        model = task.model().to(device).train()
        optimiser = build_optimiser(model, small.optimiser)
        begin = time.perf_counter()
        figures = training_step(small, task, model, optimiser, min(warm, small.steps - 1))
        seconds = time.perf_counter() - begin
    size = sum(p.numel() for p in model.parameters())
    solved = f", {figures['evaluations']:.0f} evaluations" if figures.get("evaluations") else ""
    told = f"loss {figures['loss']:.4g}, gradient {figures['gradient_norm']:.3g}{solved}, {seconds:.1f} s"
    return f"Dry run: {size:,} parameters; one step on {SAMPLES} samples: {told}. Nothing was written."


def of_two(config: Any) -> Any:
    """The configuration with batches of two samples, whole ones."""
    data: Any = getattr(config, "data", None)
    if not hasattr(data, "batch_size"):
        came = f"one of the task {config.task!r}, whose batches are its own"
        fail("--dry-run", "a recipe with data.batch_size", came, error=InputError)
    return dataclasses.replace(config, accumulate=1, data=dataclasses.replace(data, batch_size=SAMPLES))
