"""Is every CONVERGED true? Random small problems, every claim recomputed from outside in double precision.

    python -m benchmarks.engine.honesty --output honesty.json      # 5,000 problems, 20 minutes; --fast: 200

Every solver, rule and constraint, in float32 and float64, some in a metric. The code that checks (`outside.py`) is
numpy and shares nothing with the engine. Counted, all of which should be zero:

    untrue        CONVERGED, and a residual from outside is above the tolerance in the units that the solution tells
    slope         CONVERGED, and a search downhill along the gradient, the state followed by Newton's method, finds
                  more than 2 % of the way from the start and 0.5 % of the objective (20 and 5 times rtol above 1e-3)
    infeasible    an input outside its set, whatever the status
    batch         another status, or another input, alone than in a batch (float64)
    traceback     an exception
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import jiio
from benchmarks.engine.outside import BALLS, Posed, posed
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show

WRONG = ("untrue", "slope", "infeasible", "batch", "traceback")
SOLVERS = (
    jiio.Anderson(),
    jiio.Anderson(memory=5, kind="I"),
    jiio.Anderson(memory=5, blocks=("z", "mu")),
    jiio.Broyden(),
    jiio.Picard(),
)
TOLERANCES = (jiio.Tolerance(), jiio.Tolerance(1e-5, 1e-3), jiio.Tolerance(1e-4, 1e-2), jiio.Tolerance(1e-6, 1e-4, 7))
ACTS = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "relu": torch.relu, "linear": lambda a: a}
SETS: dict[str, Any] = {
    "Identity": lambda r: jiio.Identity(),
    "SoftThreshold": jiio.SoftThreshold,
    "QuadraticPrior": jiio.QuadraticPrior,
    "Box": lambda r: jiio.Box(-r, r),
    "Linf": jiio.LinfBall,
    "L2": jiio.L2Ball,
    "L1": jiio.L1Ball,
    "L1 and box": lambda r: jiio.Intersection(jiio.L1Ball(r), jiio.Box(-r, r)),
    "L2 and box": lambda r: jiio.Intersection(jiio.L2Ball(r), jiio.Box(-r, r)),
    "L1 and L2": lambda r: jiio.Intersection(jiio.L1Ball(r), jiio.L2Ball(r)),
}


def problem(case: Posed, rows: slice, dtype: torch.dtype) -> jiio.Problem:
    """The same problem for the engine."""
    W, U, b, y, w = (torch.tensor(a).to(dtype) for a in (case.W, case.U, case.b, case.y[rows], case.w[rows]))
    function = ACTS[case.act]

    def objective(z: Tensor, x: Tensor) -> Tensor:
        r = z - y
        if case.loss == "log cosh":
            fit = (torch.logaddexp(r, -r) - 0.6931471805599453).sum(1)
        else:
            half = 0.5 * r.square().sum(1)
            fit = half.exp() if case.loss == "exponential" else half
        return w * (fit + 0.5 * case.ridge * x.square().sum(1))

    return jiio.Problem(lambda z, x: function(z @ W + x @ U + b), objective, SETS[case.prox](case.radius))


def settings(case: Posed, seed: int) -> Row:
    """How it is solved, drawn by its number."""
    draw = np.random.default_rng([1, seed])
    rules: list[jiio.AbstractRule] = [jiio.GradientStep(), jiio.GradientStep(1.0)]
    if case.prox in BALLS:
        rules += [jiio.MomentumStep(0.3, momentum=0.5), jiio.NormalizedStep(0.1)]
    if case.prox in ("Box", "Linf", "Identity"):
        rules += [jiio.SignStep(0.05), jiio.AdamStep(0.05)]
    return {
        "solver": SOLVERS[draw.integers(len(SOLVERS))],
        "rule": rules[draw.integers(len(rules))],
        "tolerance": TOLERANCES[draw.integers(len(TOLERANCES))],
        "max_steps": int(draw.choice([10, 60, 150])),
        "adjoint": jiio.Detached(),
        "on_failure": "ignore",
    }


def solved(case: Posed, rows: slice, dtype: torch.dtype, how: Row, metric: bool) -> jiio.Solution:
    own = problem(case, rows, dtype)
    x0, z0 = torch.tensor(case.x0[rows]).to(dtype), torch.tensor(case.z0[rows]).to(dtype)
    if not metric:
        return jiio.solve(own, x0, z0, **how)
    # Measured at the first sample of the whole batch, so that a sample alone has the same metric.
    first = problem(case, slice(0, 1), dtype), torch.tensor(case.x0[:1]).to(dtype), torch.tensor(case.z0[:1]).to(dtype)
    near = jiio.Sensitivity.of(*first).linearised(own, x0, z0)
    return jiio.solve(own, near.x, near.z, metric=near.metric, **how)


def one(seed: int) -> Counter[str]:
    """What was found with the problem of this number."""
    case, draw = posed(seed), np.random.default_rng([2, seed])
    how, found = settings(case, seed), Counter()
    double = bool(draw.random() < 0.5)
    dtype, batch = (torch.float64 if double else torch.float32), len(case.y)
    plain = isinstance(how["rule"], jiio.GradientStep) and case.prox in ("Identity", "QuadraticPrior")
    metric = plain and draw.random() < 0.5
    try:
        got = solved(case, slice(0, batch), dtype, how, metric)
        for i in range(batch):
            found.update(judged(case, got, i, how))
        if double and batch > 1 and seed % 3 == 0:
            found["alone against batch"] += 1
            alone = solved(case, slice(1, 2), dtype, how, metric)
            found["batch"] += differ(alone, got, how["tolerance"])
    except Exception as error:  # each is a finding
        say(f"{seed}: {type(error).__name__}: {str(error)[:200]}")
        found["traceback"] += 1
    for key in WRONG:
        if found[key]:
            words = key, case.act, case.loss, case.prox, how["solver"], how["rule"], dtype, "metric" if metric else ""
            say(f"{seed}: {', '.join(map(str, words))}")
    return found


def differ(alone: jiio.Solution, got: jiio.Solution, tolerance: jiio.Tolerance) -> bool:
    """Whether the second sample is another one in a batch."""
    if int(alone.status[0]) != int(got.status[1]):
        return True
    assert got.scaling is not None and got.multiplier is not None
    size = float(got.z[1].norm() + (got.x[1] * got.scaling[1][1].sqrt()).norm())
    apart = float(((alone.x[0] - got.x[1]) * got.scaling[1][1].sqrt()).norm())
    return int(got.status[1]) == 1 and apart > 1e3 * (tolerance.atol + tolerance.rtol * size)


def judged(case: Posed, got: jiio.Solution, i: int, how: Row) -> Counter[str]:
    """One sample of a solution, looked at from outside."""
    assert got.scaling is not None and got.multiplier is not None
    z, mu, x = (t[i].detach().double().numpy() for t in (got.z, got.multiplier, got.x))
    status, eps = jiio.Status(int(got.status[i])).name, torch.finfo(got.x.dtype).eps
    found = Counter({"samples": 1, status: 1})
    found["infeasible"] += not np.isfinite(x).all() or case.excess(x) > 60 * eps * (case.radius + np.abs(x).max())
    if status == "CONVERGED":
        units = [float(t[i, 0]) for t in got.scaling]
        found["untrue"] += untrue(case, i, (z, mu, x), units, how, eps)
        found["slope"] += slope(case, i, z, x, how["tolerance"].rtol)
    return found


def untrue(case: Posed, i: int, at: Sequence[np.ndarray], units: Sequence[float], how: Row, eps: float) -> bool:
    """Whether a residual is above its tolerance, in the units of the solution."""
    (z, mu, x), (sigma, kappa), rule, tolerance = at, units, how["rule"], how["tolerance"]
    state, entering = case.slopes(z, x)
    image, pulled = case.image(z, x), (state @ mu + case.steep(i, z)) / sigma
    gradient = entering @ mu + case.w[i] * case.ridge * x
    full = float(rule.rate) if rule.exact_step else 1.0
    moved = case.stepped(x, full / (sigma * kappa), gradient) - x
    blocks = ((image - z, image), (pulled - mu / sigma, pulled), (moved / full * kappa**0.5, x * kappa**0.5))
    sizes = [(rms(gap), rms(size)) for gap, size in blocks]
    noise = 3e3 * eps * (1e-3 * (1 + max(size for _, size in sizes)) + max(size for _, size in sizes) * (eps > 1e-10))
    return any(gap > 1.1 * (tolerance.atol + tolerance.rtol * size) + noise for gap, size in sizes)


def rms(part: np.ndarray) -> float:
    return float(np.sqrt(np.mean(part**2)))


def slope(case: Posed, i: int, z: np.ndarray, x: np.ndarray, rtol: float) -> bool:
    """Whether a search along the gradient finds a good deal less; not where the equilibrium is another branch's."""
    here = case.equilibrium(z, x)
    first = case.equilibrium(case.z0[i], case.stepped(case.x0[i], 0.0, case.x0[i]))
    if here is None or np.abs(here - z).max() > 0.05 * (1 + np.abs(z).max()):
        return False
    state, entering = case.slopes(here, x)
    if np.abs(np.linalg.eigvals(state)).max() >= 1:  # no cell that settles there by itself
        return False
    mu = np.linalg.solve(np.eye(len(z)) - state, case.steep(i, here))
    gradient, value = entering @ mu + case.w[i] * case.ridge * x, case.value(i, here, x)
    reach = (np.sqrt(x @ x) + 0.1) / max(1e-300, np.sqrt(gradient @ gradient))
    lowest = value
    for step in reach * np.logspace(-4, -0.3, 16):  # as long as it goes down: behind a ridge is another valley
        there = case.stepped(x, step, gradient)
        follow = case.equilibrium(here, there)
        if follow is None or np.abs(np.linalg.eigvals(case.slopes(follow, there)[0])).max() >= 1:
            break
        reached = case.value(i, follow, there)
        if reached > lowest + 1e-9 * abs(lowest):
            break
        lowest = min(lowest, reached)
    way = 0.0 if first is None else max(0.0, case.value(i, first, case.x0[i]) - lowest)
    share = max(1e-3, rtol)  # who asks for 1 % gets no more
    return value - lowest > share * max(20 * way, 5 * (abs(lowest) + case.w[i]))


def many(first: int, count: int) -> Row:
    """A block of problems."""
    found: Counter[str] = Counter()
    for seed in range(first, first + count):
        found.update(one(seed))
    return {key: int(value) for key, value in found.items()}


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Block by block, so that a run that was stopped goes on."""
    total: Counter[str] = Counter()
    done = 0
    for first in range(0, options.problems, options.block):
        key = f"{first} to {first + options.block - 1}"
        if rows.late(key, options.minutes):
            break
        total.update(rows.each(key, many, first, options.block))
        done = first + options.block
    names = [*WRONG, "samples", "alone against batch", *(s.name for s in jiio.Status if total[s.name])]
    show(f"{done} random problems", [{"what": name, "count": str(total[name])} for name in names])
    return {"problems done": done, "total": dict(total)}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"problems": 200})
    made.number("--problems", 5000, "how many")
    made.number("--block", 50, "of them in a row of the file")
    made.free |= {"problems"}
    made.minutes()
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
