"""The small training of a classifier of digits on which several claims are tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jiio.tasks.classify.data import ClassifyDataConfig
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import ClassifyConfig
from jiio.tasks.frame.config import OptimiserConfig


def digits(
    folder: Path, model: NetworkConfig, *, seed: int, steps: int, test: int, batch: int = 100, **other: Any
) -> ClassifyConfig:
    """MNIST at 14 x 14, 20,000 images in batches of ``batch``; a minute or two of training.

    folder: of its checkpoints. test: number of test images. other: of ClassifyConfig.
    """
    settings: dict[str, Any] = {"optimiser": OptimiserConfig(rate=5e-3, warmup=20)} | other
    data = ClassifyDataConfig("mnist", 14, batch_size=batch, train_limit=20_000, test_limit=test)
    return ClassifyConfig(
        output=str(folder), seed=seed, steps=steps, checkpoint_every=100, data=data, model=model, **settings
    )
