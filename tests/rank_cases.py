"""Trainings by several processes, started as a launcher starts them: a port, the environment, a limit in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "double.py"

# Small versions of the recipes: everything that their losses do that is no plain mean over samples.
RECIPES = {
    # Solves that may break down, a random probe of the Jacobian, images with holes and noise.
    "restore": """
task: restore
data: {family: faces, size: 8, batch_size: 9}
corruption: {name: BoxHole, options: {side: 3, sigma: 0.1}}
model: {cell: {name: Dense, options: {features: 12}}, latent: 4, jacobian: 0.1}
joint: {max_steps: 20}
average: 0.9
""",
    # Running moments of codes and errors.
    "generate": """
task: generate
data: {family: faces, size: 8, batch_size: 9}
model: {cell: {name: Dense, options: {features: 12, gain: 0.7, scaling: spectral}}, latent: 4, jacobian: 0.1}
sampling: {codes: 10, samples: 4}
inference: {name: Joint, options: {max_steps: 20}}
""",
    # An attack inside of every step, from a random start; states at random for a penalty; dropout in the cell.
    "classify": """
task: classify
data: {family: faces, size: 8, mirror: true, shift: 1, batch_size: 10}
model: {cell: {name: Conv, options: {channels: 4, groups: 2, dropout: 0.2}}}
defence:
  - {name: PGDTraining, options: {norm: l2, radius: 0.5, steps: 2}}
  - {name: JointTraining, options: {norm: l2, radius: 0.5, max_steps: 6, random_start: true}}
  - {name: CleanTraining}
  - {name: JacobianPenalty, options: {weight: 0.2}}
optimiser: {weight_decay: 0.01}
""",
    # A mean over pixels that have a class, of which parts have unequal numbers.
    "segment": """
task: segment
data: {family: scenes, size: [16, 16], batch_size: 6, train_limit: 20, test_limit: 10, mirror: true}
model:
  cell: {name: Multiscale, options: {channels: [4, 4], expansion: 1, groups: 2, halvings: 1, dropout: 0.1}}
  adjoint: {name: Phantom}
""",
    # Two kinds of dropout from the global random state, a memory, a probe in some of the steps.
    "language": """
task: language
data: {family: python-docs, segment: 12, segments: 2, batch_size: 5, valid_limit: 100, train_limit: 2000}
model: {width: 12, heads: 2, inner: 16, memory: 12, dropout: 0.1}
jacobian: {weight: 0.5, share: 0.5}
""",
    # Several images for each sample, adapted to by a joint solve with the exact gradient.
    "meta": """
task: meta
data: {family: glyphs, size: 12, ways: 3, queries: 2, batch_size: 5}
model: {channels: [4], features: 12, task: 6}
test: {tasks: 2, ways: [3], shots: [1], queries: 1}
""",
    # A residual relative to the mean square of the whole batch, and noise of a level of its own for each patch.
    "prior": """
task: prior
data: {families: [photos], size: 16, batch_size: 5}
model: {channels: 1, features: 4, wide: 8, depth: 1}
""",
}


def write_recipe(name: str, folder: Path, steps: int, every: int = 1000) -> Path:
    """The file of a recipe."""
    path = folder / f"{name}.yaml"
    path.write_text(f"{RECIPES[name]}steps: {steps}\ncheckpoint_every: {every}\nthreads: 1\n")
    return path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """Of a process, without what a launcher may have said to this one."""
    told = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    rest = {name: value for name, value in os.environ.items() if name not in told}
    return {**rest, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), **more}


def begin(
    count: int, words: Sequence[str], folder: Path, program: Sequence[str] = (str(PROGRAM),)
) -> list[subprocess.Popen[str]]:
    """The same command by ``count`` ranks, whose output goes into files of the folder; one alone gets no rank."""
    port, started = str(free_port()), []
    for rank in range(count):
        told: Mapping[str, str] = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        said = (folder / f"said-{rank}.txt").open("w")
        command = [sys.executable, *program, *words]
        with said:
            process = subprocess.Popen(
                command, cwd=folder, env=environment(**(told if count > 1 else {})), stdout=said, stderr=said, text=True
            )
        started.append(process)
    return started


def finish(started: Sequence[subprocess.Popen[str]], limit: float) -> list[int]:
    """The exit codes; whoever has not ended by then is killed, and the test with it."""
    try:
        return [process.wait(limit) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)


def together(count: int, words: Sequence[str], folder: Path, limit: float = 300.0) -> list[int]:
    """Run to the end."""
    return finish(begin(count, words, folder), limit)


def said(folder: Path, rank: int = 0) -> str:
    """What a rank said."""
    return (folder / f"said-{rank}.txt").read_text()
