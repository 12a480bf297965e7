"""The DEQ transformer: causality, memory and gradients, each against a slower and plainer computation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import jiio
from helpers import central, relative
from jiio.checks import JiioError
from jiio.models import (
    TRANSFORMERS,
    ExplicitTransformer,
    KernelAttention,
    Memory,
    RelativeAttention,
    Tokens,
    TransformerConfig,
    TransformerModel,
    sparse_masks,
)

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(atol=1e-12, rtol=1e-12)
SMALL = TransformerConfig(11, 8, 2, 12, memory=4)
KINDS = [(norm, attention) for norm in ("post", "pre") for attention in ("relative", "rbf", "exponential")]


def made(config: TransformerConfig = SMALL, seed: int = 0, **options) -> TransformerModel:
    torch.manual_seed(seed)
    options = {"tolerance": TIGHT, "max_steps": 300, "adjoint": jiio.Implicit(tolerance=TIGHT, max_steps=300)} | options
    return TransformerModel(config, **options).to(DOUBLE).eval()


def tokens(batch: int, length: int, seed: int = 1, vocabulary: int = SMALL.vocabulary) -> Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


# -- causality


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 7), st.integers(0, 10_000), st.booleans())
def test_a_token_never_changes_what_stands_before_it(kind, place, seed, remembered) -> None:
    """At the converged equilibrium, with and without a memory."""
    model = made(replace(SMALL, norm=kind[0], attention=kind[1]), seed % 7)
    with torch.no_grad():
        memory = model(tokens(2, 5, seed + 1))[1] if remembered else None
        first = tokens(2, 8, seed)
        other = first.clone()
        other[:, place] = (other[:, place] + 1 + seed % 10) % SMALL.vocabulary
        a, b = (model(t, memory)[0] for t in (first, other))
    changed = (a - b).abs().amax((0, 2))
    assert float(changed[:place].max() if place else 0.0) < 1e-9
    assert float(changed[place]) > 1e-4  # and it is heard where it stands


def test_an_unrolled_twin_is_causal_bit_for_bit() -> None:
    model = made()
    first, other = tokens(2, 8), tokens(2, 8)
    other[:, 5] = (other[:, 5] + 1) % SMALL.vocabulary
    with torch.no_grad():
        a, b = (model.unrolled(model.tokens.embed(t), layers=6)[0] for t in (first, other))
    assert torch.equal(a[:, :5], b[:, :5]) and not torch.equal(a[:, 5:], b[:, 5:])


# -- memory


def dense(model: TransformerModel, x: Tensor, lengths: list[int]) -> Tensor:
    """All segments at once: the plain iteration on the whole text, where token i sees what the scheme lets it see."""
    cell, config, u = model.cell, model.config, model.inject(x)
    owner = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    place = torch.arange(x.shape[1])
    low = (starts[owner] - config.memory).clamp_min(0)
    hidden = (place[None, :] > place[:, None]) | (place[None, :] < low[:, None])
    z = torch.zeros_like(x)
    attention = cell.attention
    for _ in range(400):
        q, k, v = attention.split(attention.project(cell.seen(z)) + u["said"])
        weights = attention.scores(q, k).masked_fill(hidden, -math.inf).softmax(3)
        heard = attention.out((weights @ v).transpose(1, 2).flatten(2))
        if config.norm == "post":
            h = cell.norm1(z + u["stream"] + heard)
            z = cell.norm2(h + cell.down(cell.act(cell.up(h))))
        else:
            h = u["stream"] + heard
            z = h + cell.down(cell.act(cell.up(cell.norm2(h))))
    return model.last(z)


@pytest.mark.parametrize(("norm", "attention"), [("post", "relative"), ("pre", "rbf")])
@pytest.mark.parametrize("memory", [0, 3, 5, 20])
def test_segments_with_memory_equal_the_dense_computation(norm: str, attention: str, memory: int) -> None:
    """Uneven segments, memory shorter and longer than one; with 20 it is the whole past, and the mask plain causal."""
    model, lengths = made(replace(SMALL, norm=norm, attention=attention, memory=memory)), [4, 1, 5, 3]
    with torch.no_grad():
        x = model.tokens.embed(tokens(2, sum(lengths)))
        found, carried, start = [], None, 0
        for n in lengths:
            state, carried = model.states(x[:, start : start + n], carried)
            found.append(state)
            start += n
        torch.testing.assert_close(torch.cat(found, 1), dense(model, x, lengths), rtol=1e-8, atol=1e-8)
    held = 0 if carried is None else carried.embedding.shape[1]
    assert held == min(memory, sum(lengths))


def test_the_memory_is_the_equilibrium_and_carries_no_gradient() -> None:
    model = made()
    x = model.tokens.embed(tokens(2, 6)).detach().requires_grad_()
    state, memory = model.states(x)
    assert isinstance(memory, Memory)
    torch.testing.assert_close(memory.states[0], state.detach()[:, -4:])
    assert not memory.states[0].requires_grad and not memory.embedding.requires_grad
    later, _ = model.states(model.tokens.embed(tokens(2, 3, 5)), memory)
    assert torch.autograd.grad(later.sum(), x, allow_unused=True)[0] is None


def test_one_token_at_a_time_equals_the_whole_text() -> None:
    model = made(replace(SMALL, memory=16))
    text = tokens(2, 9)
    with torch.no_grad():
        whole, memory, parts = model(text)[0], None, []
        for t in range(9):
            part, memory = model(text[:, t : t + 1], memory)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-8, atol=1e-8)


# -- the equilibrium and its twin


@pytest.mark.parametrize(("norm", "attention"), KINDS)
def test_the_unrolled_twin_converges_to_the_equilibrium(norm: str, attention: str) -> None:
    model = made(replace(SMALL, norm=norm, attention=attention))
    with torch.no_grad():
        x, memory = model.tokens.embed(tokens(2, 6)), model(tokens(2, 5, 3))[1]
        state = model.states(x, memory)[0]
        apart = [float((model.unrolled(x, memory, layers=n)[0] - state).abs().max()) for n in (4, 8, 16, 120)]
    apart = [max(gap, 1e-12) for gap in apart]  # below it is rounding
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-9


def test_masks_thin_every_layer_in_its_own_way() -> None:
    model = made()
    masks = sparse_masks(model.cell, 3, 0.5, generator=torch.Generator().manual_seed(0))
    x = model.tokens.embed(tokens(2, 6))
    name = "up.weight"
    assert not torch.equal(masks[0][name], masks[1][name])
    torch.testing.assert_close(masks[0][name].unique(), torch.tensor([0.0, 2**0.5], dtype=DOUBLE))
    # By hand: the weights of the cell overwritten before every layer.
    kept = {n: p.detach().clone() for n, p in model.cell.named_parameters()}
    with torch.no_grad():
        found = model.unrolled(x, layers=3, masks=masks)[0]
        u, z = model.inject(x), torch.zeros_like(x)
        for mask in masks:
            for n, p in model.cell.named_parameters():
                p.copy_(kept[n] * mask.get(n, torch.ones((), dtype=DOUBLE)))
            z = model.cell(z, u)
        for n, p in model.cell.named_parameters():
            p.copy_(kept[n])
    torch.testing.assert_close(found, z)
    dense_masks = sparse_masks(model.cell, 3, 0.0, generator=torch.Generator())
    torch.testing.assert_close(
        model.unrolled(x, layers=3, masks=dense_masks)[0], model.unrolled(x, layers=3)[0], rtol=1e-12, atol=1e-12
    )


def test_a_batch_is_a_batch_of_one_many_times() -> None:
    model = made()
    text, before = tokens(5, 6), tokens(5, 5, 9)
    with torch.no_grad():
        together = model(text, model(before)[1])[0]
        alone = torch.cat([model(text[b : b + 1], model(before[b : b + 1])[1])[0] for b in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", [0, 4])
def test_the_explicit_stack_is_causal_and_remembers_each_layer(memory: int) -> None:
    torch.manual_seed(0)
    model = ExplicitTransformer(replace(SMALL, memory=memory), 3).to(DOUBLE).eval()
    text = tokens(2, 8)
    with torch.no_grad():
        whole = model(text)[0]
        first, carried = model(text[:, :4])
        second = model(text[:, 4:], carried)[0]
    torch.testing.assert_close(first, whole[:, :4], rtol=1e-10, atol=1e-10)
    if memory:  # as long as the past: nothing is lost
        torch.testing.assert_close(second, whole[:, 4:], rtol=1e-10, atol=1e-10)
    else:
        assert carried is None and not torch.allclose(second, whole[:, 4:])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_explicit_stack_has_as_many_parameters(layers: int) -> None:
    config = TransformerConfig(50, 16, 2, 128)

    def size(module) -> int:
        return sum(p.numel() for p in module.parameters())

    found, wanted = size(ExplicitTransformer.of_equal_size(config, layers)), size(TransformerModel(config))
    assert abs(found - wanted) <= layers * (2 * 16 + 1)
    with pytest.raises(JiioError, match="fewer"):
        ExplicitTransformer.of_equal_size(config, 40)


# -- gradients


def test_gradcheck_of_the_equilibrium_in_the_embeddings() -> None:
    model = made(replace(SMALL, width=4, inner=5))
    memory = model(tokens(1, 3, 7))[1]
    x = model.tokens.embed(tokens(1, 3)).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: model.states(e, memory)[0], (x,), atol=1e-6)


@pytest.mark.parametrize(("norm", "attention"), [("post", "relative"), ("pre", "rbf"), ("post", "exponential")])
def test_parameter_gradients_by_finite_differences_and_by_unrolling(norm: str, attention: str) -> None:
    model = made(replace(SMALL, norm=norm, attention=attention))
    text, before = tokens(3, 6), tokens(3, 4, 5)
    with torch.no_grad():
        memory = model(before)[1]
    names = [n for n, p in model.named_parameters()]

    def loss(**options) -> Tensor:
        model.settings = model.settings.merged(**options)
        state, _ = model.states(model.tokens.embed(text[:, :-1]), memory)
        return model.tokens.surprise(state, text[:, 1:]).mean()

    implicit = torch.autograd.grad(loss(), list(model.parameters()))
    unrolled = torch.autograd.grad(loss(adjoint=jiio.Unrolled(), solver=jiio.Picard()), list(model.parameters()))
    phantom = torch.autograd.grad(loss(adjoint=jiio.Phantom(60, 1.0)), list(model.parameters()))
    for name, a, b, c in zip(names, implicit, unrolled, phantom, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)
        torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-8, msg=name)
    for name in ("cell.attention.project.weight", "inject.said.weight", "inject.stream.weight", "cell.down.weight"):
        parameter, slope = model.get_parameter(name), implicit[names.index(name)]
        direction = torch.randn(parameter.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
        start = parameter.detach().clone()

        def at(value: Tensor, parameter: Tensor = parameter) -> Tensor:
            parameter.data.copy_(value)
            return loss()

        numeric = central(at, start, direction)
        parameter.data.copy_(start)
        assert relative(numeric, float((slope * direction).sum())) < 1e-6, name


def test_the_joint_solve_over_an_embedding_is_optimal() -> None:
    """Against gradient descent on the equilibrium by the implicit gradient, a route without the joint iteration."""
    model = made(replace(SMALL, width=4, inner=5))
    text = tokens(2, 4)

    # Not from zero, where layer norm has no slope to speak of.
    start = model.tokens.embed(tokens(2, 4, 5)).detach()

    def objective(state: Tensor, x: Tensor) -> Tensor:
        return model.tokens.surprise(state, text).sum(1) + 0.5 * (x - start).square().flatten(1).sum(1)

    tight = jiio.Tolerance(atol=1e-9, rtol=1e-9)
    solution = jiio.solve(model.at().problem(objective), start, tolerance=tight, max_steps=600)
    assert bool(solution.converged.all())
    x = solution.x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(objective(model.states(x)[0], x).sum(), x)
    assert float(slope.abs().max()) < 1e-6
    assert bool((solution.value < objective(model.states(start)[0], start)).all())


def test_memory_does_not_grow_with_the_steps() -> None:
    """Bytes that autograd keeps: the same after 10 and 60 steps with Implicit, more layers more bytes without."""
    model = made(SMALL)
    text = tokens(2, 6)

    def kept(**options) -> int:
        seen: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        endless = {"on_failure": "ignore", "tolerance": jiio.Tolerance(atol=0.0, rtol=1e-300)}
        model.settings = model.settings.merged(**(endless | options))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            state, _ = model.states(model.tokens.embed(text))
        assert state.requires_grad
        return sum(seen.values())

    few, many = (kept(max_steps=n, adjoint=jiio.Implicit()) for n in (10, 60))
    assert few == many
    few, many = (kept(max_steps=n, adjoint=jiio.Unrolled(), solver=jiio.Picard()) for n in (10, 60))
    assert many > 4 * few


# -- dropout


def test_dropout_masks_are_drawn_once_per_solve() -> None:
    model = made(replace(SMALL, dropout=0.3)).train()
    x = model.tokens.embed(tokens(2, 6))
    torch.manual_seed(0)
    read = model.solved(x)
    state = read.state
    assert bool(read.solution.converged.all())  # a mask that changed at every step would leave no fixed point
    torch.manual_seed(0)
    torch.testing.assert_close(model.states(x)[0], state)
    assert not torch.allclose(model.states(x)[0], state)
    mask = model.cell.draw_masks(state, torch.Generator().manual_seed(0))
    assert mask is not None and mask[0].shape == (2, 1, 8) and mask[1].shape == (2, 1, 12)
    torch.testing.assert_close(model.eval().states(x)[0], made(replace(SMALL, dropout=0.3)).states(x)[0])


def test_weight_norm_reaches_its_parameters() -> None:
    model = made(replace(SMALL, weight_norm=True))
    loss = model.tokens.surprise(model.states(model.tokens.embed(tokens(2, 5)))[0], tokens(2, 5, 3)).mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.cell.parameters())


# -- tokens


@pytest.mark.parametrize("cutoffs", [(), (4,), (3, 7)])
def test_probabilities_and_surprise_agree(cutoffs: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    coding = Tokens(11, 16, cutoffs=cutoffs, divisor=2.0).to(DOUBLE)
    state, target = torch.randn(2, 5, 16, dtype=DOUBLE), tokens(2, 5)
    logs = coding.log_probabilities(state)
    torch.testing.assert_close(logs.exp().sum(2), torch.ones(2, 5, dtype=DOUBLE))
    torch.testing.assert_close(-logs.gather(2, target[..., None])[..., 0], coding.surprise(state, target))


@pytest.mark.parametrize("cutoffs", [(), (3, 7)])
def test_embeddings_are_the_rows_of_the_output(cutoffs: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    coding = Tokens(11, 16, cutoffs=cutoffs, divisor=2.0).to(DOUBLE)
    state, everything = torch.randn(1, 1, 16, dtype=DOUBLE), torch.arange(11)[None]
    scores = coding.embed(everything)[0] @ state[0, 0] / 4.0
    with torch.no_grad():
        for parameter in coding.parameters():
            if parameter.dim() == 1:
                parameter.zero_()
    logs = coding.log_probabilities(state)[0, 0]
    for low, high in zip((0, *cutoffs), (*cutoffs, 11), strict=True):  # in a cluster, up to its own constant
        apart = (scores - logs)[low:high]
        torch.testing.assert_close(apart, apart[:1].expand_as(apart))
    coding.embed(everything).square().sum().backward()
    assert all(p.grad is not None for p in coding.parameters() if p.dim() == 2)


def test_the_presets() -> None:
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in TransformerModel(c).parameters()) for name, c in TRANSFORMERS.items()}
    assert sizes["tiny"] < 100_000 and sizes["small"] < 2_000_000
    assert 95e6 < sizes["medium"] < 115e6  # the paper: 110 million; 98 in "Stabilizing equilibrium models"
    assert TransformerConfig.preset("tiny", width=32).width == 32


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TransformerConfig(heads=5), "heads"),
        (lambda: TransformerConfig(norm="middle"), "norm"),
        (lambda: TransformerConfig(attention="dot"), "attention"),
        (lambda: TransformerConfig(cutoffs=(300,)), "cutoffs"),
        (lambda: TransformerConfig(cutoffs=(20, 10)), "cutoffs"),
        (lambda: TransformerConfig(dropout=1.0), "dropout"),
        (lambda: TransformerConfig(span=0), "span"),
        (lambda: TransformerConfig.preset("huge"), "name"),
        (lambda: Tokens(11, 4, cutoffs=(3, 7), divisor=4.0), "cutoffs"),
        (lambda: KernelAttention(8, 2, kernel="linear"), "kernel"),
        (lambda: RelativeAttention(8, 3), "heads"),
        (lambda: TransformerModel(SMALL, speed=3), "speed"),
        (lambda: TransformerModel(SMALL)(torch.zeros(2, 3)), "tokens"),
        (lambda: TransformerModel(SMALL)(torch.full((2, 3), 11)), "0 to 10"),
        (lambda: TransformerModel(SMALL).states(torch.zeros(2, 3, 5)), "x"),
        (lambda: TransformerModel(SMALL).unrolled(torch.zeros(2, 3, 8), layers=0), "layers"),
        (lambda: TransformerModel(SMALL).unrolled(torch.zeros(2, 3, 8), layers=2, masks=()), "masks"),
        (lambda: sparse_masks(TransformerModel(SMALL).cell, 2, 1.0, generator=torch.Generator()), "sparsity"),
        (lambda: Tokens(11, 8).surprise(torch.zeros(2, 3, 8), tokens(2, 4)), "targets"),
    ],
)
def test_mistakes_get_a_sentence(make, words: str) -> None:
    with pytest.raises((JiioError, TypeError), match=words):
        make()
