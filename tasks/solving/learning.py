"""Training of amortised starts on finished solves: the linear map in closed form, hidden layers by Adam.

The loss is the share of the variance of the finished solves that is left unexplained, summed over the blocks x, z and
mu: 1 per block is what their mean explains, 0 would be every answer exactly. It has no units, so no block outweighs
another, whatever the scale of the objective (mu) or of the code (x).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_integer, fail
from jiio.layout import Spec, Tree
from jiio.outputs.seeds import generator

from .amortised import AmortisedStart, Sizes, elements

SOLVE = jiio.SolveSettings(
    jiio.Anderson(memory=12), jiio.Detached(), jiio.Tolerance(1e-6, 1e-4), max_steps=200, on_failure="ignore"
).arguments()
RIDGES = torch.logspace(-6, 3, 19).tolist()  # of the mean square of the observations
LOOK = 50  # steps between two looks at the held-out solves
HELD = 0.2  # share of the solves on which the ridge is chosen and the training is stopped

Posed = tuple[jiio.Problem, Tree, Tensor]  # problem, plain start, observation


@dataclass(frozen=True, eq=False)
class Finished:
    """Solves that converged.

    observation: (N, n) or (N, M, n). x: (N, k). z, mu: (N, M, m), M = 1 without sets. scaling: (N, 2), sigma and kappa.
    """

    observation: Tensor
    x: Tensor
    z: Tensor
    mu: Tensor
    scaling: Tensor
    sizes: Sizes

    def part(self, index: Tensor) -> Finished:
        """Some of them."""
        tensors = (self.observation, self.x, self.z, self.mu, self.scaling)
        return Finished(*(tensor[index] for tensor in tensors), sizes=self.sizes)

    def __len__(self) -> int:
        return len(self.x)

    def split(self, seed: int) -> tuple[Finished, Finished]:
        """Those to learn from and those held out."""
        order = torch.randperm(len(self), generator=generator(seed, "held"))
        held = max(1, round(HELD * len(self)))
        return self.part(order[held:]), self.part(order[:held])


@torch.no_grad()
def finish(cases: Iterable[Posed], **settings: Any) -> Finished:
    """Solve every case from its plain start and keep the samples that converged; ``settings`` of :func:`jiio.solve`.

    Errors: ArgumentError where fewer than ten did.
    """
    parts: list[tuple[Tensor, ...]] = []
    sizes = None
    for problem, x0, observation in cases:
        # What a start has to say, of the samples that have an answer.
        solution = jiio.solve(problem, x0, **(SOLVE | settings))
        sizes = sizes or Sizes.of(x0, solution.z, observation)
        good = solution.converged
        assert solution.multiplier is not None and solution.scaling is not None
        states = [packed_elements(tree, sizes.sets, len(good)) for tree in (solution.z, solution.multiplier)]
        scaling = torch.cat([*solution.scaling], 1)
        parts.append(tuple(t[good] for t in (observation, Spec.of(x0).pack(solution.x), *states, scaling)))

    count = sum(len(part[1]) for part in parts)
    if sizes is None or count < 10:
        remedy = "Solve more cases, or raise max_steps."
        fail("cases", "at least ten samples whose solve converges", f"{count}", remedy)
    return Finished(*(torch.cat(some) for some in zip(*parts, strict=True)), sizes=sizes)


def packed_elements(tree: Tree, sets: bool, batch: int) -> Tensor:
    """A state as (B, M, m)."""
    tree = elements(tree, sets)
    return Spec.of(tree).pack(tree).unflatten(0, (batch, -1))


def regression_loss(start: AmortisedStart, finished: Finished) -> Tensor:
    """(3,) unexplained share of the variance of x, z and mu."""
    shares = []
    for block, scaled in zip(("x", "z", "mu"), start(finished.observation), strict=True):
        wanted = (getattr(finished, block) - getattr(start, f"{block}_mean")) / getattr(start, f"{block}_scale")
        shares.append((scaled - wanted.reshape(scaled.shape)).square().mean())
    return torch.stack(shares)


@torch.enable_grad()
def train_start(finished: Finished, *, hidden: int = 0, steps: int = 1000, seed: int = 0) -> AmortisedStart:
    """A start from finished solves: the linear map by ridge regression, and with hidden layers everything by Adam.

    hidden: width of the two hidden layers; none by default, because on the generators measured they gain nothing
    (docs/generate.md). steps: of Adam; the one with the least loss on held-out solves is kept, the linear map among
    them.
    """
    check_integer("steps", steps, 0)
    learnt, held = finished.split(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "start").initial_seed())
        start = AmortisedStart(finished.sizes, hidden=hidden).to(finished.x)
    set_moments(start, learnt)
    fit_linear(start, learnt, held)
    if hidden:
        refine(start, learnt, held, steps=steps, seed=seed)
    return start.eval().requires_grad_(False)


def refine(start: AmortisedStart, learnt: Finished, held: Finished, *, steps: int, seed: int) -> None:
    """All layers by Adam (with decoupled decay), in place; in the end those with the least loss on held-out solves."""
    optimiser = torch.optim.AdamW(start.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    best, least = copy.deepcopy(start.state_dict()), float("inf")
    for step in range(steps + 1):
        # Before the first step too: the linear map alone may be the best of all.
        if step % LOOK == 0 or step == steps:
            with torch.no_grad():
                now = float(regression_loss(start, held).sum())
            if now < least:
                best, least = copy.deepcopy(start.state_dict()), now

        if step < steps:
            chosen = torch.randint(len(learnt), (min(128, len(learnt)),), generator=generator(seed, "some", step))
            optimiser.zero_grad(set_to_none=True)
            regression_loss(start, learnt.part(chosen)).sum().backward()
            optimiser.step()
            schedule.step()
    start.load_state_dict(best)


@torch.no_grad()
def set_moments(start: AmortisedStart, finished: Finished) -> None:
    """Centres and scales of the observations and of the blocks; the middle of the scales of the problems."""
    start.scaling.copy_(finished.scaling.median(0).values)
    for block in ("observed", "x", "z", "mu"):
        rows = (finished.observation if block == "observed" else getattr(finished, block)).flatten(0, -2)
        mean = rows.mean(0)
        scale = (rows - mean).square().mean().sqrt()
        getattr(start, f"{block}_mean").copy_(mean)
        getattr(start, f"{block}_scale").copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))


@torch.no_grad()
def fit_linear(start: AmortisedStart, learnt: Finished, held: Finished) -> None:
    """Ridge regression in closed form, its strength chosen on held-out solves."""

    def pairs(of: Finished) -> list[tuple[Tensor, Tensor]]:
        seen = start.seen(of.observation)
        wanted = [(getattr(of, b) - getattr(start, f"{b}_mean")) / getattr(start, f"{b}_scale") for b in ("z", "mu")]
        x = (of.x - start.x_mean) / start.x_scale
        return [(seen.mean(1), x), (seen.flatten(0, 1), torch.cat(wanted, 2).flatten(0, 1))]

    for layer, (a, b), (c, d) in zip((start.to_input, start.to_state), pairs(learnt), pairs(held), strict=True):
        # One eigendecomposition serves every ridge. a: seen, b: wanted; c and d: likewise, held out.
        a, b, c, d = (t.double() for t in (a, b, c, d))
        values, vectors = torch.linalg.eigh(a.T @ a / len(a))
        turned, seen = vectors.T @ (a.T @ b / len(a)), c @ vectors
        unit = values.mean().clamp_min(1e-300)
        maps = [turned / (values.clamp_min(0.0) + ridge * unit)[:, None] for ridge in RIDGES]
        best = min(maps, key=lambda m: float((seen @ m - d).square().mean()))
        layer.weight.copy_((vectors @ best).T)


@torch.enable_grad()
def train_on_objective(
    start: AmortisedStart,
    cases: Callable[[int], Posed],
    *,
    joint_steps: int = 4,
    steps: int = 200,
    rate: float = 3e-4,
) -> AmortisedStart:
    """A copy of the start, trained further on the objective after a few joint steps, through all of which it goes.

    cases: number of the step -> what is solved. Each sample counts relative to its objective, so that hard ones do not
    drown the others.
    """
    start = copy.deepcopy(start).requires_grad_(True).train()
    optimiser = torch.optim.Adam(start.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    settings = SOLVE | {"adjoint": jiio.Unrolled(), "max_steps": check_integer("joint_steps", joint_steps, 2)}

    for step in range(steps):
        problem, x0, observation = cases(step)
        value = start.proposal(problem, x0, observation).solve(problem, **settings).value
        value = value[torch.isfinite(value)]
        if not len(value) or not value.requires_grad:
            continue

        # Divided by itself as a constant: the gradient of its logarithm.
        optimiser.zero_grad(set_to_none=True)
        (value / value.detach().abs().clamp_min(1e-12)).mean().backward()
        torch.nn.utils.clip_grad_norm_(start.parameters(), 1.0)
        optimiser.step()
        schedule.step()

    return start.eval().requires_grad_(False)
