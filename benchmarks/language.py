"""The DEQ transformer against layers: perplexity, memory and cost on text, and soft prompts jointly and nested.

    perplexity  the same training for all: the equilibrium, its unrolled twins with 4, 8 and 16 layers, a twin with a
                sparse mask per layer, and an explicit transformer with as many parameters
    memory      peak of what the allocator holds above the start of a training step of one segment, and bytes that
                autograd keeps for the backward pass; for the equilibrium also after exactly 10 and 60 solver steps
    prompts     on a model trained before: evaluations (cell calls and VJPs) until the objective is within one per cent
                of what the joint solve ends at: of the joint solve, its inputs measured at equilibria solved anew, and
                of Adam with an equilibrium and an adjoint solve per step, at the best of two rates and two inner
                tolerances; and of the joint solve until it has converged

Rows that stand in the file of --output are not computed again, so an interrupted run is continued by the same command.

    JIIO_DATA=DIR python benchmarks/language.py --output language.json
    python benchmarks/language.py --prompts runs/language-default --targets 1 --output prompts.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import harness
import torch

import jiio
from jiio.outputs.atomic import write_whole
from jiio.outputs.seeds import derive
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError, read_bytes
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import build_optimiser, training_step
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.depths import SolveConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.prompt import RULE, TOLERANCE, PromptProblem, nested
from jiio.tasks.language.task import Language
from jiio.tasks.language.text import load_text

DEPTHS: dict[str, dict[str, Any]] = {
    "equilibrium": {"name": "Equilibrium"},
    "4 layers, tied": {"name": "WeightTied", "options": {"layers": 4}},
    "8 layers, tied": {"name": "WeightTied", "options": {"layers": 8}},
    "16 layers, tied": {"name": "WeightTied", "options": {"layers": 16}},
    "4 layers, tied, half masked": {"name": "WeightTied", "options": {"layers": 4, "sparsity": 0.5}},
    "3 layers, explicit": {"name": "Explicit", "options": {"layers": 3}},
}
# Of the nested way, all tried, the cheapest counts.
RATES = (0.1, 0.3)
INNER = (1e-3, 1e-2)
PROMPT, TARGET = 4, 24


def configuration(options: argparse.Namespace, depth: str, seed: int) -> LanguageConfig:
    values = {
        "seed": seed,
        "steps": options.steps,
        "data": {
            "family": options.family,
            "unit": options.unit,
            "vocabulary": 10_000,
            "batch_size": 8,
            "valid_limit": options.valid,
        },
        "model": {"inner": 512, "memory": 64, "cutoffs": [] if options.unit == "characters" else [1000, 4000]},
        "depth": DEPTHS[depth],
        "optimiser": {"rate": 0.004, "warmup": max(1, options.steps // 12), "clip": 0.5},
    }
    return build(LanguageConfig, values)


class Records:
    """Rows by name, in the file from the first on."""

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.about, self.rows = path, json.loads(json.dumps(about)), {}
        if path is not None and path.exists():
            found = json.loads(read_bytes("--output", path, "the figures of this benchmark", 64 << 20))
            if found.get("settings") != self.about:
                raise InputError(f"--output: {path} holds figures of other settings. Name another file.")
            self.rows = found["rows"]

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = harness.plain(row)
        harness.say(f"{name}: {self.rows[name]}")
        if self.path is not None:
            content = {"settings": self.about, "rows": self.rows}
            write_whole(self.path, json.dumps(content, indent=1).encode() + b"\n")


def trained(options: argparse.Namespace, depth: str, seed: int) -> tuple[Language, LanguageModel, float]:
    """The task, the model after its training, and the processor seconds that took."""
    config = configuration(options, depth, seed)
    task = Language(config, data_root=options.data_root)
    torch.manual_seed(derive(seed, "model"))
    model = task.model().train()
    assert isinstance(model, LanguageModel)
    optimiser = build_optimiser(model, config.optimiser)
    begin = time.process_time()
    for step in range(options.steps):
        training_step(config, task, model, optimiser, step)
    return task, model.eval(), time.process_time() - begin


def perplexity(task: Language, model: LanguageModel, seconds: float) -> dict[str, Any]:
    begin = time.process_time()
    (row,) = task.evaluate(model)
    named = {key.partition(" per ")[0]: value for key, value in row.items()}
    return {
        "perplexity": named["perplexity"],
        "bits": named["bits"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "training seconds": seconds,
        "measuring seconds": time.process_time() - begin,
    }


def peak(function: Any) -> int:
    """Bytes that the allocator held at most during a call, above what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    held = highest = 0
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]
        highest = max(highest, held)
    return highest


def memory(options: argparse.Namespace, depth: str, solve: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of one training step on one segment after a memory, without the Jacobian penalty."""
    values = configuration(options, depth, 0)
    values = build(LanguageConfig, {**vars(values), "solve": build(SolveConfig, solve or {})})
    task = Language(values, data_root=options.data_root)
    torch.manual_seed(0)
    model = task.model().train()
    assert isinstance(model, LanguageModel)
    piece = task.tokens[: 8 * 129].clone().view(8, 129)  # not a view of the whole text, which autograd would keep
    with torch.no_grad():
        before = model.read(piece[:, :64], None).memory
    kept: dict[int, int] = {}

    def keep(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    def step() -> None:
        segment = model.read(piece[:, 64:128], before)
        model.body.tokens.surprise(segment.state, piece[:, 65:129]).mean().backward()
        model.zero_grad()

    step()
    found = peak(step)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        state = model.read(piece[:, 64:128], before).state
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    graph = sum(size for place, size in kept.items() if place not in own)
    assert state.requires_grad
    return {"peak MB": found / 1e6, "kept by autograd MB": graph / 1e6}


def prompts(text: str, model: LanguageModel, seed: int, count: int) -> dict[str, Any]:
    """``count`` targets of the held-out text, other ones for every seed, one start each."""
    model.requires_grad_(False)
    tokens = model.vocabulary().encode(text)
    joint_near, joint_cost, joint_time, nested_cost, nested_time, before, after = [], [], [], [], [], [], []
    best_ways = []
    for i in range(seed * count, (seed + 1) * count):
        problem = PromptProblem(model, tokens[1000 * i : 1000 * i + TARGET], length=PROMPT, seed=i)
        begin = time.process_time()
        solution = jiio.solve(
            problem.problem(),
            problem.start,
            rule=RULE,
            adjoint=jiio.Detached(),
            tolerance=TOLERANCE,
            max_steps=300,
            on_failure="ignore",
            trace="points",
        )
        joint_time.append(time.process_time() - begin)
        joint_cost.append(solution.evaluations.total)
        state, first = problem.measure(solution.x), problem.measure(problem.start)
        goal = 1.01 * float(problem.objective(state, solution.x))
        # The inputs on the way, each at an equilibrium solved anew; four evaluations and VJPs measured the scales.
        assert solution.trace is not None
        way = torch.cat(solution.trace.x)
        values = problem.objective(problem.measure(way), way)
        joint_near.append(4.0 + 2.0 * int((values <= goal).nonzero()[0]) if bool((values <= goal).any()) else math.inf)
        before.append(float(problem.surprise(first).mean()))
        after.append(float(problem.surprise(state).mean()))
        ways = []
        for rate, rtol in itertools.product(RATES, INNER):
            begin = time.process_time()
            inner = jiio.Tolerance(atol=1e-2 * rtol, rtol=rtol)
            spent, values = nested(problem, rate=rate, steps=80, tolerance=inner, goal=goal)
            seconds = time.process_time() - begin
            there = float(values[-1]) <= goal
            ways.append((spent[-1] if there else math.inf, seconds if there else math.inf, f"{rate}, {rtol}"))
        cost, seconds, best = min(ways)
        nested_cost.append(cost)
        nested_time.append(seconds)
        best_ways.append(best)
    ratios = [b / a for a, b in zip(joint_near, nested_cost, strict=True)]
    return {
        "nats before": sum(before) / count,
        "nats after": sum(after) / count,
        "joint, converged": joint_cost,
        "joint": joint_near,
        "nested": nested_cost,
        "ratio": ratios,
        "joint seconds": joint_time,
        "nested seconds": nested_time,
        "rate, tolerance": best_ways,
    }


def on_checkpoint(options: argparse.Namespace) -> harness.Row:
    """Soft prompts alone, on a model that was trained before."""
    checkpoint = load(options.prompts)
    model = LanguageModel.of(checkpoint)
    assert isinstance(checkpoint.config, LanguageConfig)
    _, text = load_text(checkpoint.config.data, data_root=options.data_root)
    records = Records(options.output, {"checkpoint": options.prompts.name, "step": checkpoint.step})
    for seed in range(options.seeds):
        if f"prompts/{seed}" not in records.rows:
            records.add(f"prompts/{seed}", prompts(text, model, seed, options.targets))
    report_prompts(records.rows)
    return {"settings": records.about, "rows": records.rows}


def run(options: argparse.Namespace) -> harness.Row:
    if options.prompts is not None:
        return on_checkpoint(options)
    if options.fast:
        options.steps, options.valid = 20, 2000
    about = {key: getattr(options, key) for key in ("steps", "valid", "unit", "family")}
    records = Records(options.output, about)
    fixed = {"atol": 0.0, "rtol": 1e-12}  # never met: exactly as many steps as are allowed
    for depth in DEPTHS:
        if f"memory/{depth}" not in records.rows:
            records.add(f"memory/{depth}", memory(options, depth))
    for steps in (10, 60):
        name = f"memory/equilibrium, {steps} steps"
        if name not in records.rows:
            records.add(name, memory(options, "equilibrium", {**fixed, "max_steps": steps}))
    done = True
    for seed in range(options.seeds):
        for depth in DEPTHS:
            name = f"perplexity/{depth}/{seed}"
            if name in records.rows:
                continue
            if time.process_time() > 60 * options.minutes:
                done = False
                continue
            task, model, seconds = trained(options, depth, seed)
            records.add(name, perplexity(task, model, seconds))
    if not done:
        harness.say("The time is used up; the same command goes on.")
    report(records.rows)
    return {"settings": records.about, "rows": records.rows}


def report(rows: dict[str, dict[str, Any]]) -> None:
    """The tables, as far as there are rows."""
    lines = []
    for depth in DEPTHS:
        mine = [row for name, row in rows.items() if name.startswith(f"perplexity/{depth}/")]
        line: dict[str, Any] = {"depth": depth, "seeds": len(mine)}
        if mine:
            line["parameters"] = str(mine[0]["parameters"])
            for key in ("perplexity", "bits", "training seconds", "measuring seconds"):
                line[key] = harness.spread([row[key] for row in mine], 4)
        lines.append(line | {k: f"{v:.2f}" for k, v in rows.get(f"memory/{depth}", {}).items()})
    harness.show("Perplexity per token: median (lowest to highest seed); memory of a step on one segment", lines)
    few, many = (rows[f"memory/equilibrium, {n} steps"] for n in (10, 60))
    for key in few:
        harness.show_line(f"{key}, 60 solver steps over 10", f"{many[key] / few[key]:.3f}")


def report_prompts(rows: dict[str, dict[str, Any]]) -> None:
    """The table of the soft prompts."""
    mine = list(rows.values())

    def numbers(key: str) -> list[float]:
        return [math.inf if v is None else v for row in mine for v in row[key]]

    harness.show(
        f"Soft prompts ({PROMPT} embeddings, {TARGET} tokens, {len(numbers('joint'))} targets)",
        [
            {
                "nats before": harness.spread([row["nats before"] for row in mine]),
                "nats after": harness.spread([row["nats after"] for row in mine]),
                **{
                    key: harness.spread(numbers(key))
                    for key in ("joint, converged", "joint", "nested", "ratio", "joint seconds", "nested seconds")
                },
            }
        ],
    )


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--family", default="ptb", help="the text (default ptb)")
    made.add_argument("--unit", default="characters", choices=("characters", "words"), help="default characters")
    made.add_argument("--steps", type=harness.positive, default=250, help="training steps (default 250)")
    made.add_argument("--valid", type=harness.positive, default=20_000, help="validation tokens (default 20000)")
    made.add_argument("--targets", type=harness.positive, default=3, help="soft prompts per seed (default 3)")
    made.add_argument("--prompts", type=Path, help="soft prompts alone, on this checkpoint or folder of a training")
    made.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so many minutes")
    sys.exit(harness.main(made, run))
