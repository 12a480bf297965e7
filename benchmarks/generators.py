"""Generators that the benchmarks train, each for so many seconds of the processor; kept between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import say
from timed import train_for

from jiio.outputs.seeds import derive
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.load import build
from jiio.tasks.generate.generator import LatentGenerator
from jiio.tasks.generate.task import Generate, GenerateConfig

HOW: dict[str, dict[str, Any]] = {"Joint": {"max_steps": 40}, "Nested": {"steps": 20, "rate": 0.1}, "Variational": {}}
SETS: dict[str, dict[str, Any]] = {
    "celeba": {"data": {"size": 24, "batch_size": 32}, "model": {"latent": 32, "prior": 0.02}},
    "faces": {"data": {"size": 24, "batch_size": 32}, "model": {"latent": 32, "prior": 0.02}},
    "mnist": {
        "data": {"size": 28, "batch_size": 32, "mirror": False, "shift": 0},
        "model": {"latent": 32, "prior": 0.05},
    },
}
CELL = {"name": "Dense", "options": {"features": 128, "gain": 0.7, "scaling": "spectral"}}
RATE = 5e-3


def plan(family: str, how: str, seed: int, *, test: int) -> GenerateConfig:
    """The configuration of one training."""
    given = SETS[family]
    values = {"task": "generate", "seed": seed, "inference": {"name": how, "options": HOW[how]}}
    values["data"] = {"family": family, "test_limit": test, **given["data"]}
    values["model"] = {"cell": CELL, "jacobian": 0.1, **given["model"]}
    values["sampling"] = {"components": 10 if family == "mnist" else 1, "codes": 500, "samples": test}
    return build(GenerateConfig, values)


def trained(
    config: GenerateConfig, seconds: float, *, cache: Path | None, data_root: Path | None
) -> tuple[Generate, LatentGenerator, dict[str, float]]:
    """The task, its trained generator, and what the training was."""
    task = Generate(config, data_root=data_root)
    torch.manual_seed(derive(config.seed, "model"))
    model = task.model()
    assert isinstance(model, LatentGenerator)
    name = f"{config.data.family}-{config.inference.name}-{config.seed}-{seconds:g}.safetensors"
    path = None if cache is None else cache / name
    if path is not None and path.exists():
        found = checkpoint.load(path)
        found.restore_model(model)
        return task, model.eval().requires_grad_(False), {"steps": float(found.step)}
    step = train_for(seconds, task, model, config.seed, RATE)
    say(f"{name}: {step} steps in {seconds:g} s")
    if path is not None:
        checkpoint.save(path, step, config, model)
    return task, model.eval().requires_grad_(False), {"steps": float(step)}
