"""Short trainings of the toy, whole and interrupted, for the tests of the training loop."""

from __future__ import annotations

import signal
from pathlib import Path

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


class InterruptedToy(toy.ToyTask):
    """Ctrl-C is pressed in the middle of a step."""

    def __init__(self, config, at: int, times: int = 1) -> None:
        super().__init__(config)
        self.at, self.times = at, times

    def loss(self, model, step):
        if step == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().loss(model, step)
