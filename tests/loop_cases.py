"""Short trainings of the toy, whole and interrupted, for the tests of the training loop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch

import toy
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build, read_yaml
from jiio.tasks.frame.loop import train
from jiio.tasks.restore.latent import RestoreConfig


def config_of(output: str, **changes) -> RestoreConfig:
    path = Path("toy.yaml")
    path.write_text(toy.YAML)
    return build(RestoreConfig, {**read_yaml("config", path), "output": output, **changes})


def silent(line: str) -> None:
    pass


def run(config: RestoreConfig, **options):
    return train(config, report=silent, **options)


def assert_same_training(folder: str | Path, other: str | Path) -> None:
    """Weights, optimiser state and log are equal bit for bit."""
    for name in ("weights.safetensors", "step-00000040.safetensors"):
        a, b = load(Path(folder) / name), load(Path(other) / name)
        assert a.step == b.step == 40 and a.tensors.keys() == b.tensors.keys()
        for key, tensor in a.tensors.items():
            assert torch.equal(tensor, b.tensors[key]), key
    assert (Path(folder) / "log.jsonl").read_bytes() == (Path(other) / "log.jsonl").read_bytes()


@contextlib.contextmanager
def stopped(task: type, at: int, stop: Callable[[], object]) -> Iterator[None]:
    """``stop`` is called in the middle of a step of every training of that task."""
    real = task.loss

    def loss(self, model, step):
        if step == at:
            stop()
        return real(self, model, step)

    with patch.object(task, "loss", loss):
        yield


def dies() -> None:
    """At once, as a kill does."""
    raise KeyboardInterrupt


def presses(times: int = 1) -> None:
    """Ctrl-C, so many times."""
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def interrupted(config: RestoreConfig, at: int, times: int = 1, **options):
    """A training of the toy in which Ctrl-C is pressed."""
    with stopped(toy.ToyTask, at, lambda: presses(times)):
        return run(config, **options)
