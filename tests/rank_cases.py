"""Trainings by several processes, started as a launcher starts them: a port, the environment, a limit in time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from jiio.tasks.frame.checkpoint import load

ROOT = Path(__file__).parents[1]

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
  - {name: Clean}
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
    # Several images for each sample, adapted to by a joint solve with the exact gradient. In few products: a Lanczos
    # process makes rounding errors larger by a factor in each.
    "meta": """
task: meta
data: {family: glyphs, size: 12, ways: 2, queries: 1, batch_size: 5}
model: {channels: [4], features: 8, task: 4}
adaptation: {name: Joint, options: {max_steps: 20, adjoint_steps: 4}}
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
    told = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "IN_DOUBLE")
    rest = {name: value for name, value in os.environ.items() if name not in told}
    return {**rest, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), **more}


def chained(commands: Iterable[Sequence[str]]) -> list[str]:
    """Several commands for one process."""
    return [word for command in commands for word in ("+", *command)][1:]


class Started(list[subprocess.Popen[str]]):
    """Processes that do not outlive the test that has started them."""

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def finish(self, limit: float) -> list[int]:
        """The exit codes; an error where one has not ended by then."""
        return [process.wait(limit) for process in self]


def begin(count: int, words: Sequence[str], folder: Path, **more: str) -> Started:
    """The same words to ``count`` ranks, whose output goes into files of the folder; one alone gets no rank."""
    port, started = str(free_port()), Started()
    for rank in range(count):
        told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, str(ROOT / "tests" / "ranked.py"), *words]
        with (folder / f"said-{rank}.txt").open("w") as file:
            around = environment(**(told if count > 1 else {}), **more)
            started.append(subprocess.Popen(command, cwd=folder, env=around, stdout=file, stderr=file, text=True))
    return started


def said(folder: Path, rank: int = 0) -> str:
    """What a rank said."""
    return (folder / f"said-{rank}.txt").read_text()


def apart(one: Path, other: Path) -> float:
    """The largest difference of two files of weights of one training."""
    a, b = load(one).tensors, load(other).tensors
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
