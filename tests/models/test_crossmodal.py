"""Two streams that attend to each other: against a loop over pairs, under padding, and by what they can learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import jiio
from helpers import central, gap, relative
from jiio.checks import JiioError
from jiio.models import CrossAttention, CrossModalModel

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(1e-11, 1e-11)
INPUTS, OUTPUTS = (3, 5), 4
Pair = tuple[Tensor, Tensor]


def made(seed: int = 0, norm: str = "post", **options) -> CrossModalModel:
    torch.manual_seed(seed)
    implicit = jiio.Implicit(tolerance=TIGHT, max_steps=300)
    options = {"tolerance": TIGHT, "max_steps": 300, "adjoint": implicit} | options
    model = CrossModalModel(INPUTS, OUTPUTS, width=8, heads=2, inner=12, norm=norm, **options)
    return model.to(DOUBLE).eval()


def streams(batch: int = 3, lengths: tuple[int, int] = (4, 6), seed: int = 1) -> Pair:
    source = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(batch, t, n, dtype=DOUBLE, generator=source) for t, n in zip(lengths, INPUTS, strict=True))
    return a, b


def test_attention_across_equals_the_loop_over_pairs() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(6, 2).to(DOUBLE)
    z, other = torch.randn(2, 3, 6, dtype=DOUBLE), torch.randn(2, 5, 6, dtype=DOUBLE)
    said, told = torch.randn(2, 3, 18, dtype=DOUBLE), torch.randn(2, 5, 18, dtype=DOUBLE)
    hidden = torch.tensor([[False] * 5, [False, True, False, False, True]])
    asks, keys, values = attention.project.weight.detach().chunk(3)
    expected = torch.zeros_like(z)
    for b in range(2):
        for i in range(3):
            for h in (slice(0, 3), slice(3, 6)):
                q = (asks @ z[b, i] + said[b, i, :6])[h]
                seen = [j for j in range(5) if not hidden[b, j]]
                k = [(keys @ other[b, j] + told[b, j, 6:12])[h] for j in seen]
                v = [(values @ other[b, j] + told[b, j, 12:])[h] for j in seen]
                weights = torch.stack([q @ one / math.sqrt(3) for one in k]).softmax(0)
                expected[b, i, h] = sum(w * one for w, one in zip(weights, v, strict=True))
    expected = expected @ attention.out.weight.T
    torch.testing.assert_close(attention.across(z, said, other, told, hidden), expected)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_equilibrium_is_found_and_is_one(norm: str) -> None:
    """Streams of several lengths; the state is a fixed point by a plain application of the cell."""
    model = made(norm=norm)
    for lengths in ((1, 1), (4, 6), (9, 2)):
        x = streams(lengths=lengths)
        solution = model.at().solve(x)
        assert bool(solution.converged.all())
        assert [tuple(part.shape) for part in solution.z] == [(3, lengths[0], 8), (3, lengths[1], 8)]
        assert gap(model.cell(solution.z, model.inject(x)), solution.z) < 1e-9
        assert model(x).shape == (3, OUTPUTS)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["post", "pre"]), st.integers(1, 3), st.integers(1, 5), st.sampled_from([0.0, 50.0, math.nan]))
def test_padding_never_changes_a_result(norm: str, short: int, long: int, wild: float) -> None:
    """Whatever stands there and however much of it; the gradient of what stands there is zero."""
    model, x = made(norm=norm), streams(2, (short, long))
    plain = model(x)
    pairs = [F.pad(part, (0, 0, 0, more), value=wild) for part, more in zip(x, (2, 3), strict=True)]
    held = [torch.arange(part.shape[1]) < n for part, n in zip(pairs, (short, long), strict=True)]
    a, b = (part.requires_grad_() for part in pairs)
    padded = model((a, b), (held[0].expand(2, -1), held[1].expand(2, -1)))
    torch.testing.assert_close(padded, plain, rtol=1e-8, atol=1e-8)
    for slope, mask in zip(torch.autograd.grad(padded.sum(), (a, b)), held, strict=True):
        assert bool(torch.isfinite(slope).all()) and float(slope[:, ~mask].abs().max()) == 0.0
        assert float(slope[:, mask].abs().max()) > 0.0


def test_padding_inside_a_stream_hides_the_token_there() -> None:
    model, (a, b) = made(), streams()
    there = (torch.ones(3, 4, dtype=torch.bool), torch.tensor([[True, False, True, True, True, False]] * 3))
    other = b.clone()
    other[:, 1] += 3.0
    torch.testing.assert_close(model((a, other), there), model((a, b), there), rtol=1e-8, atol=1e-8)
    assert gap(model((a, other)), model((a, b))) > 1e-3


def test_samples_never_meet() -> None:
    model, (a, b) = made(), streams(4)
    there = (torch.rand(4, 4) < 2, torch.arange(6) < torch.tensor([6, 3, 1, 5])[:, None])
    order = torch.tensor([2, 0, 3, 1])
    whole = model((a, b), there)
    mixed = model((a[order], b[order]), (there[0][order], there[1][order]))
    torch.testing.assert_close(mixed, whole[order], rtol=1e-8, atol=1e-8)
    alone = model((a[1:2], b[1:2]), (there[0][1:2], there[1][1:2]))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-8, atol=1e-8)


def test_each_stream_hears_the_other() -> None:
    model, (a, b) = made(), streams()
    before, _ = model.at().solve((a, b)).z
    after, _ = model.at().solve((a, b + 1.0)).z
    assert gap(before, after) > 1e-3


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_gradients_by_finite_differences_and_by_unrolling(norm: str) -> None:
    model, (a, b) = made(norm=norm), streams(2)
    there = (torch.ones(2, 4, dtype=torch.bool), torch.arange(6) < torch.tensor([6, 4])[:, None])
    weights = torch.randn(2, OUTPUTS, dtype=DOUBLE)
    leaf = a.clone().requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss(x: Tensor, **options) -> Tensor:
        return (weights * model.at(there, **options)((x, b))).sum()

    slopes = torch.autograd.grad(loss(leaf), [leaf, *parameters])
    unrolled = torch.autograd.grad(loss(leaf, adjoint=jiio.Unrolled(), solver=jiio.Picard()), [leaf, *parameters])
    for one, two in zip(slopes, unrolled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)
    source = torch.Generator().manual_seed(2)
    direction = torch.randn(a.shape, dtype=DOUBLE, generator=source)
    assert relative(float((slopes[0] * direction).sum()), central(loss, a, direction)) < 1e-6
    for name in ("cell.blocks.0.attention.project.weight", "inject.embed.1.weight", "cell.blocks.1.down.weight"):
        parameter = dict(model.named_parameters())[name]
        slope = slopes[1 + next(i for i, p in enumerate(parameters) if p is parameter)]
        way = torch.randn(parameter.shape, dtype=DOUBLE, generator=source)
        at = parameter.detach().clone()

        def moved(value: Tensor, parameter: Tensor = parameter) -> Tensor:
            parameter.data.copy_(value)
            return loss(a)

        numeric = central(moved, at, way)
        parameter.data.copy_(at)
        assert relative(float((slope * way).sum()), numeric) < 1e-6, name


def test_the_joint_solve_over_both_streams() -> None:
    """Inputs in balls, states and multipliers found together: no input nearby is better at a fresh equilibrium."""
    model, x = made(), streams(2)
    model.requires_grad_(False)
    start = model(x)

    ball = jiio.L2Ball(0.5, center=x)
    problem = model.at().problem(lambda scores, _: -scores[:, 0], ball)
    solution = jiio.solve(problem, x, adjoint=jiio.Detached(), tolerance=jiio.Tolerance(1e-9, 1e-8), max_steps=500)
    assert bool(solution.converged.all()) and float(ball.violation(solution.x).max()) < 1e-9
    reached = model(solution.x)
    torch.testing.assert_close(-solution.value, reached[:, 0], rtol=1e-6, atol=1e-6)
    assert bool((reached[:, 0] > start[:, 0] + 1e-3).all())
    source = torch.Generator().manual_seed(3)
    for _ in range(5):
        a, b = (part + 0.02 * torch.randn(part.shape, dtype=DOUBLE, generator=source) for part in solution.x)
        assert bool((model(ball((a, b)))[:, 0] <= reached[:, 0] + 1e-7).all())


def test_dropout_is_one_mask_for_a_solve() -> None:
    model = made(dropout=0.4).train()
    x = streams()
    first = model.at().solve(x)
    assert bool(first.converged.all())
    assert gap(first.z, model.at().solve(x).z) > 1e-3
    again = model.eval().at().solve(x)
    assert gap(again.z, model.at().solve(x).z) == 0.0


# -- what it can learn

# Stream a: one token, a place of two. Stream b: a one at the other place or at this. The answer: what stands at the
# place. These are all the questions there are, and either stream alone is right in half of them, whatever it answers.
PLACES, VALUES = torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]])


@pytest.mark.parametrize("silent", [None, 0, 1])
def test_the_answer_needs_both_streams(silent: int | None) -> None:
    answer = VALUES[torch.arange(4), PLACES]
    a, b = F.one_hot(PLACES[:, None], 2) * 2.0, F.one_hot(VALUES, 2) * 2.0
    x = (a * (silent != 0), b * (silent != 1))
    torch.manual_seed(0)
    loose = {"tolerance": jiio.Tolerance(1e-3, 1e-3), "max_steps": 30}
    model = CrossModalModel((2, 2), 2, width=16, inner=16, adjoint=jiio.Implicit(**loose), **loose)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3, betas=(0.8, 0.95))
    for _ in range(40 if silent is None else 5):
        loss = F.cross_entropy(model(x), answer)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = float((model(x).argmax(1) == answer).double().mean())
    assert right == (1.0 if silent is None else 0.5)


# -- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": 3}, "inputs: expected a pair"),
        ({"inputs": (3, 0)}, "inputs"),
        ({"outputs": 0}, "outputs"),
        ({"heads": 3}, "heads: expected a divisor of the width 8"),
        ({"norm": "both"}, "norm"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_sizes_get_a_sentence(change: dict, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        CrossModalModel(**({"inputs": INPUTS, "outputs": OUTPUTS, "width": 8, "heads": 2} | change))


@pytest.mark.parametrize(
    ("x", "there", "words"),
    [
        (streams()[0], None, "x: expected a pair of streams"),
        ((streams()[1], streams()[0]), None, r"x\[0\]: expected a tensor of shape \(B, T, 3\)"),
        ((streams()[0], streams()[1][:, :0]), None, r"x\[1\]"),
        ((streams(2)[0], streams(3)[1]), None, "batch size"),
        ((streams()[0], streams()[1].half()), None, r"x\[1\]: expected float\d\d numbers on cpu, like the weights"),
        ((streams()[0].long(), streams()[1]), None, r"x\[0\]: expected float\d\d numbers on cpu, like the weights"),
        (streams(), torch.ones(3, 4, dtype=torch.bool), "there: expected a pair"),
        (streams(), (torch.ones(3, 4), torch.ones(3, 6)), "there: expected a bool tensor"),
        (streams(), (torch.ones(3, 4, dtype=torch.bool),) * 2, r"\(3, 6\)"),
        (streams(), (torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)), "at least one token"),
    ],
)
def test_bad_streams_get_a_sentence(x, there, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        made()(x, there)
