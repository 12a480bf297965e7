"""What does the device need? Joint steps, defaults and memory, as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import jiio
from benchmarks.engine.overhead import NEVER, Case, size
from benchmarks.gpu.cases import BATCHES, bare_step, case
from benchmarks.gpu.learning import prior_step
from benchmarks.gpu.passes import autocast, passes
from benchmarks.gpu.stages import GOOD, Setting, Work, judged
from benchmarks.tables import Row
from jiio.holding import held_fixed
from jiio.recording import AbstractRecorder, CudaRecorder, TracedRecorder, forget_records, recorded_steps
from jiio.recording.store import STORE

FUSED = ("dense", "cifar-tiny")  # that are compiled as well, which takes minutes


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The step as one launch, on CUDA."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def a_step(at: Case, setting: Setting, recorder: AbstractRecorder | None) -> float:
    """Milliseconds of a joint step: two lengths, whose difference leaves out what comes before and after the steps."""
    short, long = (10, 30) if setting.fast else (20, 60)
    how: dict[str, Any] = {"tolerance": NEVER, "adjoint": jiio.Detached(), "on_failure": "ignore"}
    turns = 3
    with recorded_steps("never" if recorder is None else "always", recorder=recorder):
        works = [partial(jiio.solve, at.problem, at.x0, max_steps=count, **how) for count in (long, short)]
        spent = [setting.timed(work, turns, warm=2) for work in works]
    return (spent[0] - spent[1]) / (long - short)


def recorder_of(setting: Setting, fused: bool = False) -> AbstractRecorder:
    return CudaRecorder(fused) if setting.device.type == "cuda" else TracedRecorder(fused)


def steps(name: str, setting: Setting) -> Row:
    """A joint step, eager and recorded, beside the bare ``f + VJP``, eager and as a graph."""
    # What no step can do without.
    at, few = case(name, setting), 3 if setting.fast else 20
    with held_fixed(at.problem.cell):
        bare = bare_step(at)
        row: Row = {"f + VJP ms": setting.timed(bare, few)}
        if setting.device.type == "cuda":
            row["as a graph ms"] = setting.timed(captured(bare, setting.device), few)

    # The step, both ways.
    forget_records()
    eager, recorded = a_step(at, setting, None), a_step(at, setting, recorder_of(setting))
    row |= {"eager step ms": eager, "recorded step ms": recorded, "size of v": size(at)}
    least = row.get("as a graph ms", row["f + VJP ms"])
    row |= {"recorded / f + VJP": recorded / least, "eager / recorded": eager / recorded}
    refused = list(STORE.refused.values())
    forget_records()
    if refused:
        return row | {"verdict": "not recorded", "why": refused[0]}

    # A small cell leaves more of the step to everything else.
    dense = name == "dense"
    aims = (row["recorded / f + VJP"] <= (2.0 if dense else 1.3), row["eager / recorded"] >= (5.0 if dense else 2.0))
    return judged(row, setting, all(aims))


def fused(name: str, setting: Setting) -> Row:
    """The recorded step after torch.compile, beside the one that is only recorded."""
    if setting.fast and name != "dense":
        return {"verdict": "left out by --fast"}
    at = case(name, setting)
    plain = a_step(at, setting, recorder_of(setting))
    forget_records()
    found = a_step(at, setting, recorder_of(setting, fused=True))
    refused = list(STORE.refused.values())
    forget_records()
    row: Row = {"recorded ms": plain, "fused ms": found, "fused / recorded": found / plain}
    return row | ({"verdict": "not recorded", "why": refused[0]} if refused else {})


def default_tolerance(name: str, setting: Setting) -> Row:
    """Whether an equilibrium meets the tolerance that is the default, and how often it is called."""
    at = case(name, setting)
    with torch.no_grad():
        solution = jiio.equilibrium(at.problem.cell, at.x0, adjoint=jiio.Detached(), on_failure="ignore")
    share = float(solution.converged.float().mean())
    row: Row = {"converged": share, "calls": solution.evaluations.cell, "residual": float(solution.residual.max())}
    return {"verdict": GOOD if share == 1.0 else "did not converge", **row}


def memory(name: str, setting: Setting) -> Row:
    """Peak memory of a solve of 200 steps over one of 20, and of a recorded solve over an eager one."""
    if setting.device.type != "cuda":
        return {"verdict": "needs CUDA"}
    at = case(name, setting)

    def peak(count: int, when: str) -> float:
        how: dict[str, Any] = {"tolerance": NEVER, "adjoint": jiio.Detached(), "on_failure": "ignore"}
        with recorded_steps(when):
            if when == "always":  # recording itself holds two steps at once; what counts is what it costs from then on
                jiio.solve(at.problem, at.x0, max_steps=count, **how)
            torch.cuda.reset_peak_memory_stats(setting.device)
            jiio.solve(at.problem, at.x0, max_steps=count, **how)
        return torch.cuda.max_memory_allocated(setting.device) / 2**20

    # Eager twice, then by a record.
    few, many, recorded = peak(20, "never"), peak(200, "never"), peak(200, "always")
    forget_records()
    row = {"20 steps MiB": few, "200 steps MiB": many, "200 / 20": many / few, "recorded / eager": recorded / many}
    return judged(row, setting, row["200 / 20"] <= 1.02)


def measures() -> dict[str, Work]:
    """Name -> one row."""
    timed = ("dense", "tiny", "cifar-tiny", "cifar-large", "decoder-64")
    made: dict[str, Work] = {f"joint step, {name}": partial(steps, name) for name in timed}
    made |= {f"default tolerance, {name}": partial(default_tolerance, name) for name in BATCHES}
    made |= {f"peak memory, {name}": partial(memory, name) for name in ("dense", "cifar-tiny")}
    made |= {"torchdeq at equal residual": passes, "autocast bfloat16": autocast}
    made |= {"training step, prior-grey": prior_step}
    return made | {f"joint step fused, {name}": partial(fused, name) for name in FUSED}
