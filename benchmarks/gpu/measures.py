"""What does the device need? Steps, passes, defaults, finished samples and memory, as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree

import jiio
from benchmarks.engine.overhead import NEVER, Case, attack, fit, size
from benchmarks.gpu.stages import GOOD, Setting, Work
from benchmarks.tables import Row
from jiio.holding import held_fixed
from jiio.layout import leaves, map_tree
from jiio.models import DenseConfig, MultiscaleConfig

SMALL = MultiscaleConfig(
    channels=(4, 4), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2), final_channels=4
)
BATCHES = {"dense": 256, "tiny": 64, "cifar-tiny": 128, "cifar-large": 128}


def case(name: str, setting: Setting) -> Case:
    """One problem on the device; of another size, for a rehearsal, with --fast."""
    draws = torch.Generator().manual_seed(0)
    batch = 4 if setting.fast else BATCHES[name]
    if name == "dense":
        made = fit(name, DenseConfig(32 if setting.fast else 512), (1, 24, 24), batch, draws)
    elif setting.fast:
        made = attack(name, SMALL, (1, 12, 12), batch, draws)
    else:
        made = attack(name, name, (3, 32, 32) if name.startswith("cifar") else (1, 28, 28), batch, draws)
    return moved(made, setting.device)


def moved(case: Case, device: torch.device) -> Case:
    """The same case on a device."""
    image, latent = case.problem.prox, case.x0.to(device)
    if isinstance(image, jiio.L2Ball):
        classes = torch.arange(len(latent), device=device) % 10
        model: Any = case.problem.cell.module.to(device)  # type: ignore[attr-defined]
        loss = partial(cross_entropy, classes)
        return Case(case.name, replace(model.problem(loss), prox=jiio.L2Ball(1.0, center=latent)), latent)
    model = case.problem.cell.module.to(device)  # type: ignore[attr-defined]
    return Case(case.name, model.problem(partial(misfit, model, latent)), latent)


def cross_entropy(classes: Tensor, scores: Tensor, _: Any) -> Tensor:
    return -F.cross_entropy(scores, classes, reduction="none")


def misfit(model: Any, like: Tensor, image: Tensor, x: Tensor) -> Tensor:
    return (image - 0.5).square().flatten(1).sum(1) + 1e-2 * x.square().sum(1)


def bare_step(case: Case) -> Callable[[], list[Tensor]]:
    """One evaluation and one VJP: what a step cannot avoid. A new result at every call."""
    z0 = case.problem.cell.initial_state(case.x0)  # type: ignore[attr-defined]
    z, mu = (map_tree(lambda leaf: 0.1 * torch.randn_like(leaf), z0) for _ in range(2))
    ones = case.x0.new_ones(len(case.x0))

    def step() -> list[Tensor]:
        zs, x = map_tree(lambda leaf: leaf.detach().requires_grad_(), z), case.x0.detach().requires_grad_()
        out, value = case.problem.cell(zs, x), case.problem.objective(zs, x)
        pulled = torch.autograd.grad([*leaves(out), value], [*leaves(zs), x], [*leaves(mu), ones], allow_unused=True)
        return [t for t in pulled if t is not None]

    return step


def captured(step: Callable[[], list[Tensor]], device: torch.device) -> Callable[[], object]:
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


def steps(name: str, setting: Setting) -> Row:
    """Milliseconds of a joint step beside those of ``f + VJP``, eager and as a graph."""
    at, few = case(name, setting), 3 if setting.fast else 20
    with held_fixed(at.problem.cell):
        step = bare_step(at)
        eager = setting.timed(step, few)
        graph = None if setting.device.type != "cuda" else setting.timed(captured(step, setting.device), few)

    def solve(count: int) -> Callable[[], object]:
        how: dict = {"tolerance": NEVER, "adjoint": jiio.Detached(), "on_failure": "ignore"}
        return partial(jiio.solve, at.problem, at.x0, max_steps=count, **how)

    # Two lengths, whose difference leaves out what a solve costs before and after its steps.
    short, long = (10, 14) if setting.fast else (20, 60)
    turns = 1 if setting.fast else 3
    spent = [setting.timed(solve(count), turns, warm=turns - 1) for count in (long, short)]
    joint = (spent[0] - spent[1]) / (long - short)
    row = {"f + VJP ms": eager, "joint step ms": joint, "joint / eager": joint / eager, "size of v": size(at)}
    return row if graph is None else row | {"as a graph ms": graph, "joint / graph": joint / graph}


def default_tolerance(name: str, setting: Setting) -> Row:
    """Whether an equilibrium meets the tolerance that is the default, and how often it is called."""
    at = case(name, setting)
    with torch.no_grad():
        solution = jiio.equilibrium(at.problem.cell, at.x0, adjoint=jiio.Detached(), on_failure="ignore")
    share = float(solution.converged.float().mean())
    row: Row = {"converged": share, "calls": solution.evaluations.cell, "residual": float(solution.residual.max())}
    return {"verdict": GOOD if share == 1.0 else "did not converge", **row}


def memory(name: str, setting: Setting) -> Row:
    """Peak memory of a solve of 200 steps over one of 20."""
    if setting.device.type != "cuda":
        return {"verdict": "needs CUDA"}
    at, peaks = case(name, setting), []
    for count in (20, 200):
        torch.cuda.reset_peak_memory_stats(setting.device)
        jiio.solve(at.problem, at.x0, tolerance=NEVER, max_steps=count, adjoint=jiio.Detached(), on_failure="ignore")
        peaks.append(torch.cuda.max_memory_allocated(setting.device) / 2**20)
    return {"20 steps MiB": peaks[0], "200 steps MiB": peaks[1], "ratio": peaks[1] / peaks[0]}


def against_torchdeq(tolerance: float, setting: Setting) -> Row:
    """Forward and backward of a plain equilibrium, ours over torchdeq's, at the same Anderson tolerance."""
    try:
        from torchdeq import get_deq  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {"verdict": "torchdeq is not installed"}

    # One network for both, with gradients for its weights alone.
    at, few = case("tiny" if setting.fast else "cifar-large", setting), 2 if setting.fast else 5
    weights = [p.requires_grad_() for p in at.problem.cell.module.parameters()]  # type: ignore[attr-defined]
    cell, x = at.problem.cell, at.x0
    z0 = map_tree(torch.zeros_like, cell.initial_state(x))  # type: ignore[attr-defined]
    tree = _pytree.tree_structure(z0)

    # As many steps of the same solver both ways as ours may take.
    limits = {"f_max_iter": 100, "b_max_iter": 100, "f_tol": tolerance, "b_tol": tolerance}
    theirs = get_deq(f_solver="anderson", b_solver="anderson", ift=True, **limits)  # its default: one phantom step

    def finish(z: Any) -> None:
        total = torch.stack([leaf.square().mean() for leaf in leaves(z)]).sum()
        torch.autograd.grad(total, weights, allow_unused=True)

    def ours() -> None:
        close = jiio.Tolerance(0.0, tolerance)
        adjoint = jiio.Implicit(tolerance=close)
        finish(jiio.equilibrium(cell, x, z0, tolerance=close, adjoint=adjoint, on_failure="ignore").z)

    def flat(*z: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaves(cell(_pytree.tree_unflatten(list(z), tree), x)))

    def published() -> None:
        found, _ = theirs(flat, leaves(z0))
        finish(found[-1])

    mine, other = setting.timed(ours, few), setting.timed(published, few)
    return {"ours ms": mine, "torchdeq ms": other, "ours / torchdeq": mine / other}


def measures() -> dict[str, Work]:
    """Name -> one row."""
    made: dict[str, Work] = {f"joint step, {name}": partial(steps, name) for name in BATCHES}
    made |= {f"default tolerance, {name}": partial(default_tolerance, name) for name in BATCHES}
    made |= {f"peak memory, {name}": partial(memory, name) for name in ("dense", "cifar-tiny")}
    return made | {f"torchdeq at {tol:g}": partial(against_torchdeq, tol) for tol in (1e-2, 1e-3)}
