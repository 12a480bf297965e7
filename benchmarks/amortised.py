"""Amortised starts: calls of the joint solve that a linear map, or a small network, saves by proposing where it begins.

Models for restore, generate and meta are trained as usual and then held; a start is trained on finished solves of
training samples (tasks/solving/learning.py) and measured on test samples. Every start is followed by the same joint
solve. Reported, as medians over the samples: evaluations plus VJPs until the input is and stays within 5 % and within
1 % of the best objective that any start led to, and until the solve converges; how often a start is within 5 % before
any step; how often the solve ends more than 1 % above the best. Objectives are measured at equilibria that are solved
again, uncounted. The two evaluations and two VJPs that measure the scale are counted, and so is the check of a
proposal against the plain start; the map itself is not, its price is told below the table. The fair rivals are
free: the scales of a finished solve, and the mean of their answers. What no start can beat stands in the rows
"answer": the solve's own answer, or parts of it.

    JIIO_DATA=DIR python benchmarks/amortised.py --cache starts --output amortised.json

With --cache, a run that was stopped goes on where it was. --fast uses the sets that need no files.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import torch
from arenas import OFFLINE, SETS, arena
from generation import verified
from torch import Tensor

import jiio
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
    harness.say(f"{name}: {len(found)} finished solves in {time.process_time() - begin:.0f} s")
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


@torch.no_grad()
def measure(begin: dict[str, Start], case: Posed) -> list[dict[str, Any]]:
    """One row for each start."""
    problem = case[0]
    settings: dict[str, Any] = SOLVE | {"max_steps": 100, "trace": "points"}
    runs = {}
    for name, start in begin.items():
        solution = start.solve(problem, **settings)
        assert solution.trace is not None
        steps = torch.arange(len(solution.trace.x))[:, None].expand(-1, len(solution.steps))
        before = start.calls + (4 if start.scaling is None else 0)
        own = (before + 2 * torch.minimum(steps, solution.steps)).float()
        values = verified(problem, [*solution.trace.x, solution.x])
        usual = start.solve(problem, **(settings | {"tolerance": USUAL, "trace": False}))
        runs[name] = torch.cat([own, own[-1:]]), values, before + 2 * usual.steps.float(), usual
    best = torch.stack([values.amin(0) for _, values, _, _ in runs.values()]).amin(0)
    rows, plain = [], {}
    for name, (own, values, ends, solution) in runs.items():
        row: dict[str, Any] = {"start": name}
        for limit in LIMITS:
            calls = arrival(own, values, best, limit)
            plain.setdefault(limit, calls)
            row[f"to {limit:.0%}"] = middle(calls)
            share = (calls / plain[limit])[torch.isfinite(plain[limit])]
            row[f"to {limit:.0%}, of plain"] = middle(share)
        plain.setdefault("end", ends)
        row |= {"to convergence": middle(ends), "of plain": middle(ends / plain["end"])}
        row["at once within 5 %"] = float((values[0] <= best + 0.05 * best.abs()).float().mean())
        row["ends above 1 %"] = float((values[-1] > best + 0.01 * best.abs()).float().mean())
        row["converged"] = float(solution.converged.float().mean())
        kept = begin[name].kept
        row["kept"] = math.nan if kept is None else float(kept.float().mean())
        rows.append(row)
    return rows


def arrival(own: Tensor, values: Tensor, best: Tensor, limit: float) -> Tensor:
    """(B,) calls until each sample is within the limit of the best and stays there; infinite where it never is."""
    near = values <= best + limit * best.abs()
    stays = near.flip(0).cummin(0).values.flip(0)
    calls = own.gather(0, stays.float().argmax(0)[None])[0]
    return torch.where(stays.any(0), calls, torch.full_like(calls, math.inf))


def middle(values: Tensor) -> float:
    """The lower median, infinity included."""
    return float(values.sort().values[(len(values) - 1) // 2])


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


def one(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train a model and its starts, and measure them."""
    place = arena(name, seed, options)
    bounds = limits(place.test)
    if place.learn is None:
        return {"set": name, "seed": seed, "rows": measure(bounds, place.test), "price": {}}
    finished = solved_before(place.learn, f"{name}-{seed}", options)
    begin = time.process_time()
    found = starts(finished, place.learn, seed, options)
    harness.say(f"{name}-{seed}: starts trained in {time.process_time() - begin:.0f} s")
    rows = measure(bounds | candidates(found, place.test), place.test)
    prices = {f"{kind}, {k}": v for kind in ("linear", "network") for k, v in price(found[kind], place.test).items()}
    return {"set": name, "seed": seed, "rows": rows, "price": prices}


def run(options: argparse.Namespace) -> harness.Row:
    if options.fast:
        options = argparse.Namespace(**vars(options) | {"seconds": 20.0, "solves": 640, "steps": 500, "samples": 20})
    chosen = options.sets or (OFFLINE if options.fast else DEFAULT)
    results: list[dict[str, Any]] = []
    for name in chosen:
        mine = []
        for seed in range(1 if options.fast else options.seeds):
            key = f"amortised-{name}-{seed}-{options.seconds:g}-{options.solves}-{options.steps}-{options.samples}"
            mine.append(harness.kept(options.cache, key, lambda n=name, s=seed: one(n, s, options)))
        table = []
        for i, row in enumerate(mine[0]["rows"]):
            same = [{k: math.nan if v is None else v for k, v in found["rows"][i].items()} for found in mine]
            table.append(
                {"start": row["start"]} | {k: harness.spread([r[k] for r in same]) for k in row if k != "start"}
            )
        harness.show(f"{name}: median (lowest to highest of {len(mine)} seeds)", table)
        for key in mine[0]["price"]:
            harness.show_line(key, harness.spread([found["price"][key] for found in mine]))
        results += mine
    return {"results": results}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--sets", nargs="+", choices=SETS, help=f"default {' '.join(DEFAULT)}")
    made.add_argument(
        "--seconds", type=float, default=60.0, help="processor seconds of a model's training (default 60)"
    )
    made.add_argument("--solves", type=harness.positive, default=3200, help="finished solves to learn from (3200)")
    made.add_argument("--steps", type=harness.positive, default=2000, help="steps of a start's training (default 2000)")
    made.add_argument("--hidden", type=harness.positive, default=128, help="width of the network (default 128)")
    made.add_argument("--samples", type=harness.positive, default=100, help="test samples (default 100)")
    made.add_argument("--shots", type=harness.positive, default=1, help="labelled images of a class, meta (default 1)")
    sys.exit(harness.main(made, run))
