"""Amortised starts: calls of the joint solve that a linear map, or a small network, saves by proposing where it begins.

    JIIO_DATA=DIR python -m benchmarks.engine.amortised --cache models --output amortised.json
    # about 2 hours; --fast: 10 minutes

Models for restore, generate and meta are trained as usual and then held; a start is trained on finished solves of
training samples (tasks/solving/learning.py) and measured on test samples. Every start is followed by the same joint
solve. Reported, as medians over the samples: evaluations plus VJPs until the input is and stays within 5 % and within
1 % of the best objective that any start led to, and until the solve converges; how often a start is within 5 % before
any step; how often the solve ends more than 1 % above the best. Objectives are measured at equilibria that are solved
again, uncounted. The two evaluations and two VJPs that measure the scale are counted, and so is the check of a
proposal against the plain start; the map itself is not, its price is told below the table. The fair rivals are
free: the scales of a finished solve, and the mean of their answers. What no start can beat stands in the rows
"answer": the solve's own answer, or parts of it.

--fast uses the sets that need no files.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.arrivals import arrival, middle, verified
from benchmarks.engine.arenas import OFFLINE, SETS, arena
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, say, show, show_lines
from jiio.tasks.solving.amortised import AmortisedStart
from jiio.tasks.solving.learning import SOLVE, Finished, Posed, finish, train_on_objective, train_start
from jiio.tasks.solving.starts import Start

DEFAULT = ("restore-celeba", "generate-celeba", "generate-mnist", "meta-omniglot", "prior-noise", "prior-holes")
WORDS = {"x": "x", "x, z": "xz", "x, z, mu": "xzmu"}
LIMITS = (0.05, 0.01)
USUAL = jiio.Tolerance(1e-5, 1e-3)  # of the three tasks; the objective is followed to a tenth of it


def solved_before(learn: Callable[[int], Posed], name: str, options: argparse.Namespace) -> Finished:
    """The finished solves that starts are trained on."""
    begin = time.process_time()
    found = finish(learn(i) for i in range(options.solves // 32))
    say(f"{name}: {len(found)} finished solves in {time.process_time() - begin:.0f} s")
    return found


def starts(
    finished: Finished, learn: Callable[[int], Posed], seed: int, options: argparse.Namespace
) -> dict[str, AmortisedStart]:
    """The trained starts by name."""
    linear = train_start(finished, seed=seed)
    network = train_start(finished, hidden=options.hidden, steps=options.steps, seed=seed)
    found = {"linear": linear, "network": network}
    if not options.fast:
        found["on the objective"] = train_on_objective(network, learn, steps=options.steps // 10)
    return found


def proposing(start: AmortisedStart, propose: str) -> AmortisedStart:
    """The same start with fewer blocks."""
    made = AmortisedStart(start.sizes, hidden=start.hidden, propose=propose).to(start.observed_mean)
    made.load_state_dict(start.state_dict())
    return made.eval().requires_grad_(False)


def means(start: AmortisedStart, case: Posed, propose: str) -> Start:
    """The mean of the finished solves, for every sample."""
    blank = AmortisedStart(start.sizes, propose=propose).to(start.observed_mean)
    own = {k: v for k, v in start.state_dict().items() if k.endswith(("_mean", "_scale", "scaling"))}
    blank.load_state_dict(blank.state_dict() | own)
    return blank.proposal(*case)


@torch.no_grad()
def candidates(found: dict[str, AmortisedStart], case: Posed) -> dict[str, Start]:
    """Where the solve of the test case begins, by name."""
    begin = {
        f"mean: {words}": means(found["linear"], case, blocks) for words, blocks in WORDS.items() if blocks != "xz"
    }
    for kind in ("linear", "network"):
        for words, propose in WORDS.items():
            begin[f"{kind}: {words}"] = proposing(found[kind], propose).proposal(*case)
        begin[f"{kind}: x, z, mu, checked"] = found[kind].begin(*case)
    if "on the objective" in found:
        begin["on the objective: x, z, mu"] = found["on the objective"].proposal(*case)
    return begin


def limits(case: Posed) -> dict[str, Start]:
    """The plain start, with the middle scales of its own solves, and with parts of their answers: what a start could
    save at most.
    """
    problem, x0, _ = case
    settings: dict[str, Any] = SOLVE | {"tolerance": jiio.Tolerance(1e-6, 3e-5)}
    done = jiio.solve(problem, x0, **settings)
    assert done.scaling is not None
    scaling = (done.scaling[0].median(), done.scaling[1].median())
    found = {"plain": Start(x0), "plain, scale known": Start(x0, scaling=scaling)}
    found["answer: x"] = Start(done.x, scaling=scaling)
    found["answer: x, z"] = Start(done.x, done.z, scaling=scaling)
    return found | {"answer: x, z, mu": Start(done.x, done.z, done.multiplier, scaling)}


@dataclass(frozen=True)
class Followed:
    """The solve from one start. own: (T, B) calls so far. values: (T, B) verified objectives. ends: (B,) calls until
    the usual tolerance; converged: (B,) whether it was met.
    """

    own: Tensor
    values: Tensor
    ends: Tensor
    converged: Tensor


def follow(start: Start, problem: jiio.Problem) -> Followed:
    """Two solves: one that is traced to the tight tolerance, and one that ends at the usual one."""
    settings: dict[str, Any] = SOLVE | {"max_steps": 100, "trace": "points"}
    solution = start.solve(problem, **settings)
    assert solution.trace is not None
    steps = torch.arange(len(solution.trace.x))[:, None].expand(-1, len(solution.steps))

    # Two evaluations and two VJPs measure the scale, where the start does not bring it.
    before = start.calls + (4 if start.measures else 0)
    own = (before + 2 * torch.minimum(steps, solution.steps)).float()
    values = verified(problem, [*solution.trace.x, solution.x])
    usual = start.solve(problem, **(settings | {"tolerance": USUAL, "trace": False}))
    return Followed(torch.cat([own, own[-1:]]), values, before + 2 * usual.steps.float(), usual.converged)


@torch.no_grad()
def measure(begin: dict[str, Start], case: Posed) -> list[Row]:
    """One row for each start; the first one is what the others are compared with."""
    runs = {name: follow(start, case[0]) for name, start in begin.items()}
    best = torch.stack([run.values.amin(0) for run in runs.values()]).amin(0)
    plain = next(iter(runs.values()))

    rows = []
    for name, run in runs.items():
        # Until near the best that any start led to, beside the plain start: the share is sample by sample.
        row: Row = {"start": name}
        for limit in LIMITS:
            calls, usual = (arrival(one.own, one.values, best, limit) for one in (run, plain))
            row[f"to {limit:.0%}"] = middle(calls)
            row[f"to {limit:.0%}, of plain"] = middle((calls / usual)[torch.isfinite(usual)])

        # Until the solve ends by itself, and where it ends.
        row |= {"to convergence": middle(run.ends), "of plain": middle(run.ends / plain.ends)}
        row["at once within 5 %"] = float((run.values[0] <= best + 0.05 * best.abs()).float().mean())
        row["ends above 1 %"] = float((run.values[-1] > best + 0.01 * best.abs()).float().mean())
        row["converged"] = float(run.converged.float().mean())
        kept = begin[name].kept
        row["kept"] = math.nan if kept is None else float(kept.float().mean())
        rows.append(row)
    return rows


@torch.no_grad()
def price(start: AmortisedStart, case: Posed) -> dict[str, float]:
    """What a proposal costs, in processor seconds of one call of the solve, and its parameters."""
    problem, x0, observation = case

    def seconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(6):  # the first one warms up
            begin = time.process_time()
            work()
            times.append(time.process_time() - begin)
        return statistics.median(times[1:])

    solution = jiio.solve(problem, x0, **SOLVE)
    call = seconds(lambda: jiio.solve(problem, x0, **SOLVE)) / solution.evaluations.total
    proposed = seconds(lambda: start.proposal(problem, x0, observation))
    return {"parameters": float(sum(p.numel() for p in start.parameters())), "costs calls": proposed / call}


def one(name: str, seed: int, options: argparse.Namespace) -> Row:
    """Train a model and its starts, and measure them."""
    place = arena(name, seed, options)
    bounds = limits(place.test)
    if place.learn is None:
        return {"rows": measure(bounds, place.test), "price": {}}

    finished = solved_before(place.learn, f"{name}-{seed}", options)
    begin = time.process_time()
    found = starts(finished, place.learn, seed, options)
    say(f"{name}-{seed}: starts trained in {time.process_time() - begin:.0f} s")

    rows = measure(bounds | candidates(found, place.test), place.test)
    prices = {f"{kind}, {k}": v for kind in ("linear", "network") for k, v in price(found[kind], place.test).items()}
    return {"rows": rows, "price": prices}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds of one set, then the next set."""
    for name in options.sets:
        found = [rows.each(f"{name}/{s}", one, name, s, options) for s in range(options.seeds)]
        lines = over_seeds((row for each in found for row in each["rows"]), "start")
        show(f"{name}: median (lowest to highest of {len(found)} seeds)", lines)
        show_lines([each["price"] for each in found])


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    small = {"seeds": 1, "sets": OFFLINE, "seconds": 20.0, "solves": 640, "steps": 500, "samples": 20}
    made = Parser(__doc__, __file__, seeds=3, fast=small)
    made.chosen("--sets", DEFAULT, SETS, "models that are held")
    made.seconds("--seconds", 60.0, "processor seconds of a model's training")
    made.number("--solves", 3200, "finished solves to learn from")
    made.number("--steps", 2000, "steps of a start's training")
    made.number("--hidden", 128, "width of the network")
    made.number("--samples", 100, "test samples")
    made.number("--shots", 1, "labelled images of a class, meta")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
