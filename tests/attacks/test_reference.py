"""PGD and APGD, point by point, against plain numpy: nothing is shared with the package, gradients are by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jiio.attacks import APGD, PGD, Target, ThreatModel

INPUTS, HIDDEN, CLASSES, COUNT = 6, 9, 3, 12
RADIUS = {"linf": 0.35, "l2": 0.8}


class Recorder(nn.Module):
    """A small ReLU network that keeps every input it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        draw = np.random.default_rng(7)
        self.a, self.c = draw.normal(size=(HIDDEN, INPUTS)), draw.normal(size=HIDDEN)
        self.b = draw.normal(size=(CLASSES, HIDDEN))
        self.asked: list[np.ndarray] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().numpy().copy())
        a, c, b = (torch.from_numpy(w) for w in (self.a, self.c, self.b))
        return torch.relu(x @ a.T + c) @ b.T


def case() -> tuple[Recorder, np.ndarray, np.ndarray]:
    """The network, images in [0, 1], some on the bounds, and their labels."""
    net, draw = Recorder(), np.random.default_rng(3)
    x = np.clip(draw.uniform(-0.3, 1.3, size=(COUNT, INPUTS)), 0.0, 1.0)
    return net, x, scores(net, x).argmax(1)


def scores(net: Recorder, x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ net.a.T + net.c, 0.0) @ net.b.T


def margins(net: Recorder, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    s = scores(net, x)
    other = np.where(np.arange(CLASSES) == y[:, None], -np.inf, s).max(1)
    return other - s[np.arange(len(y)), y]


def ascent(net: Recorder, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy and its gradient."""
    hidden, s = x @ net.a.T + net.c, scores(net, x)
    p = np.exp(s - s.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p_y = p[np.arange(len(y)), y]
    return -np.log(p_y), ((p - np.eye(CLASSES)[y]) @ net.b * (hidden > 0)) @ net.a


def nearest(point: np.ndarray, x: np.ndarray, norm: str) -> np.ndarray:
    """The nearest point in ball and box; in L2 by bisection for the multiplier of the ball."""
    r = RADIUS[norm]
    if norm == "linf":
        return np.clip(point, np.maximum(x - r, 0.0), np.minimum(x + r, 1.0))
    low, high = np.zeros((len(x), 1)), np.full((len(x), 1), 1e4)
    for _ in range(80):
        mid = 0.5 * (low + high)
        end = np.clip((point + mid * x) / (1.0 + mid), 0.0, 1.0)
        long = np.linalg.norm(end - x, axis=1, keepdims=True) > r
        low, high = np.where(long, mid, low), np.where(long, high, mid)
    return np.clip((point + high * x) / (1.0 + high), 0.0, 1.0)


def unit(g: np.ndarray, norm: str) -> np.ndarray:
    size = np.linalg.norm(g, axis=1, keepdims=True)
    return np.sign(g) if norm == "linf" else g / np.where(size > 0, size, 1.0)


def pgd(net, x, y, norm: str, steps: int, step: float, momentum: float = 0.0) -> list[np.ndarray]:
    points, pull = [x], np.zeros_like(x)
    for _ in range(steps):
        g = ascent(net, points[-1], y)[1]
        size = np.abs(g).mean(1, keepdims=True)
        pull = momentum * pull + g / np.where(size > 0, size, 1.0)
        points.append(nearest(points[-1] + step * RADIUS[norm] * unit(pull, norm), x, norm))
    return points


def apgd(net, x, y, norm: str, steps: int, rho: float) -> tuple[list[np.ndarray], dict[str, int]]:
    """Croce and Hein 2020, algorithm 1, alpha = 0.75; after a halving a sample starts from its best point without
    momentum. Also: how often each part of it mattered.
    """
    marks, p, gap = [], 0.22, 0.22
    while p <= 1.0:
        marks.append(round(p * steps))
        gap = max(gap - 0.03, 0.06)
        p += gap

    points, before, point, happened = [x], x, x, {"back": 0, "rises": 0, "stuck": 0}
    value, g = ascent(net, x, y)
    best, at, slope = value.copy(), x.copy(), g.copy()
    size, rises, last = np.full(len(x), 2.0), np.zeros(len(x)), 0
    best_then, size_then = best.copy(), size.copy()

    for k in range(1, steps + 1):
        z = nearest(point + size[:, None] * RADIUS[norm] * unit(g, norm), x, norm)
        new = z if k == 1 else nearest(point + 0.75 * (z - point) + 0.25 * (point - before), x, norm)
        before, point = point, new
        points.append(point)
        new_value, g = ascent(net, point, y)
        rises += new_value > value
        higher, value = new_value > best, new_value
        best, at = np.where(higher, value, best), np.where(higher[:, None], point, at)
        slope = np.where(higher[:, None], g, slope)
        if k in marks:
            few, stuck = rises < rho * (k - last), (best <= best_then) & (size == size_then)
            half = few | stuck
            happened["rises"] += int((few & ~stuck).sum())
            happened["stuck"] += int((stuck & ~few).sum())
            happened["back"] += int((half & (at != point).any(1)).sum())
            size_then, best_then, last, rises = size.copy(), best.copy(), k, np.zeros(len(x))
            size = np.where(half, size / 2, size)
            point, before = np.where(half[:, None], at, point), np.where(half[:, None], at, before)
            value, g = np.where(half, best, value), np.where(half[:, None], slope, g)
    return points, happened


def run(attack, norm: str) -> tuple[list[np.ndarray], np.ndarray, Recorder, np.ndarray, np.ndarray]:
    """What the attack asked about, and what it returned."""
    net, x, y = case()
    threat, draws = ThreatModel(norm, RADIUS[norm]), torch.Generator()
    found = attack.run(Target(net), torch.from_numpy(x), torch.from_numpy(y), threat, draws)
    return net.asked, found.numpy(), net, x, y


def strongest(net: Recorder, points: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Per sample the point of the largest margin."""
    gaps = np.array([margins(net, point, y) for point in points])
    return np.array([points[k][i] for i, k in enumerate(gaps.argmax(0))])


@pytest.mark.parametrize("norm", RADIUS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_point_of_pgd(norm: str, momentum: float) -> None:
    attack = PGD(steps=15, step=0.4, momentum=momentum, random_start=False)
    asked, found, net, x, y = run(attack, norm)
    points = pgd(net, x, y, norm, 15, 0.4, momentum)
    assert len(asked) == len(points)
    for mine, theirs in zip(asked, points, strict=True):
        assert np.abs(mine - theirs).max() < 1e-9
    best = strongest(net, points, y)
    assert np.abs(found - best).max() < 1e-9
    assert np.abs(best - points[-1]).max() > 1e-3  # for some sample the best point is not the last
    assert PGD(steps=15, step=0.4, best=False).best is False


@pytest.mark.parametrize("norm", RADIUS)
def test_the_last_point_where_the_best_is_not_wanted(norm: str) -> None:
    _, found, net, x, y = run(PGD(steps=15, step=0.4, best=False, random_start=False), norm)
    assert np.abs(found - pgd(net, x, y, norm, 15, 0.4)[-1]).max() < 1e-9


def test_the_default_step_of_pgd() -> None:
    asked, _, net, x, y = run(PGD(steps=10, random_start=False), "linf")
    assert np.abs(asked[1] - pgd(net, x, y, "linf", 1, 0.25)[1]).max() < 1e-12


@pytest.mark.parametrize(("norm", "rho"), [("linf", 0.75), ("l2", 0.75), ("linf", 0.1)])
def test_every_point_of_apgd(norm: str, rho: float) -> None:
    asked, found, net, x, y = run(APGD(steps=50, rho=rho, random_start=False), norm)
    points, happened = apgd(net, x, y, norm, 50, rho)
    assert len(asked) == len(points)
    for mine, theirs in zip(asked, points, strict=True):
        assert np.abs(mine - theirs).max() < 1e-7  # momentum adds up the rounding of two kinds of projection
    assert np.abs(found - strongest(net, points, y)).max() < 1e-7

    # The case has what the method is about: steps back, and each of the two conditions alone.
    assert happened["back"] > 0 and happened["rises" if rho > 0.5 else "stuck"] > 0, happened
