"""Generators that the benchmarks train, each for so many seconds of the processor; kept between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.trainings import for_seconds
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
    config: GenerateConfig, seconds: float, *, cache: Path, data_root: Path | None
) -> tuple[Generate, LatentGenerator, int]:
    """The task, its trained generator, and the steps that the seconds were enough for."""
    task = Generate(config, data_root=data_root)
    name = f"{config.data.family}-{config.inference.name}-{config.seed}"
    model, steps = for_seconds(task, name, seconds, RATE, cache)
    assert isinstance(model, LatentGenerator)
    return task, model, steps
