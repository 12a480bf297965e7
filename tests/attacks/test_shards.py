"""Parts of an evaluation that die at any moment and begin again: the report is that of one process."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attack_models import blobs, convolutional, undated
from jiio.attacks import PGD, AbstractAttack, Audit, Report, Square, Target, ThreatModel, evaluate

X, Y = blobs(48, seed=2)
BATCHES = [(X[i : i + 2], Y[i : i + 2]) for i in range(0, 48, 2)]


@dataclass(frozen=True)
class Slow(AbstractAttack):
    """PGD that takes its time."""

    inner: PGD = PGD(steps=3)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        time.sleep(0.03)
        return self.inner.run(model, x, y, threat, generator)


def measured(folder: Path | None, shard: tuple[int, int] = (0, 1)) -> Report:
    small = Audit(samples=6, steps=4, queries=8)
    attacks = [Slow(), Square(queries=8)]
    return evaluate(convolutional(), BATCHES, "linf", 0.06, attacks, audit=small, state_path=folder, shard=shard)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_four_processes_killed_five_times(tmp_path: Path) -> None:
    whole, draw, folder = undated(measured(None)), random.Random(0), tmp_path / "shared"
    for _ in range(5):
        children = [part(folder, index) for index in range(4)]
        time.sleep(draw.uniform(0.05, 0.4))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    for child in [part(folder, index) for index in range(4)]:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(folder.glob("batch-*.safetensors"))) == len(BATCHES)
    assert undated(measured(folder)) == whole


def part(folder: Path, index: int) -> int:
    """A process at work on one part; its number."""
    child = os.fork()
    if child:
        return child
    try:
        measured(folder, (index, 4))
    except BaseException:
        os._exit(1)
    os._exit(0)
