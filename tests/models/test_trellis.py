"""The trellis network as an equilibrium, and the transformer as published: against plain loops and an LSTM."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import along, gap, relative, slope
from jiio.models import (
    TransformerConfig,
    TransformerModel,
    TrellisCell,
    TrellisConfig,
    TrellisInjection,
    TrellisModel,
)
from jiio.models.sequences.model import count
from jiio.tasks.frame.load import build
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.task import Language

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(atol=1e-12, rtol=1e-12)
SMALL = TrellisConfig(vocabulary=9, width=4, hidden=5)


def made(config: TrellisConfig = SMALL, seed: int = 0, **options: Any) -> TrellisModel:
    torch.manual_seed(seed)
    exact = {"tolerance": TIGHT, "max_steps": 300, "adjoint": jiio.Implicit(tolerance=TIGHT, max_steps=300)}
    return TrellisModel(config, **(exact | options)).to(DOUBLE).eval()


def tokens(batch: int = 2, length: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(SMALL.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def by_hand(model: TrellisModel, z: Tensor, x: Tensor) -> Tensor:
    """One application of f, a token and a gate at a time; nothing before the first token."""
    n, out = model.config.hidden, torch.zeros_like(z)
    w, v = model.cell.gates.weight, model.inject.said.weight
    b, before = model.inject.said.bias, model.inject.before.weight
    for t in range(z.shape[1]):
        h, c = z[:, t, :n], torch.zeros_like(z[:, t, n:])
        a = h @ w[:, :n].T + x[:, t] @ v.T + b
        if t:
            a = a + z[:, t - 1, :n] @ w[:, n:].T + x[:, t - 1] @ before.T
            c = z[:, t - 1, n:]
        i, f, o, g = a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]
        out[:, t, n:] = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        out[:, t, :n] = torch.sigmoid(o) * torch.tanh(out[:, t, n:])
    return out


def test_one_application_is_the_equation() -> None:
    model = made()
    x, z = model.tokens.embed(tokens()), torch.randn(2, 7, 10, dtype=DOUBLE)
    with torch.no_grad():
        assert gap(model.cell(z, model.inject(x)), by_hand(model, z, x)) < 1e-12


def test_without_the_present_it_is_the_lstm() -> None:
    """W for h_(t-1) alone and no word of the neighbour: the equilibrium is what torch.nn.LSTM computes in one pass."""
    model, n = made(), SMALL.hidden
    lstm = nn.LSTM(SMALL.width, n, batch_first=True).to(DOUBLE)
    order = torch.cat([torch.arange(k * n, (k + 1) * n) for k in (0, 1, 3, 2)])  # i f g o there, i f o g here
    with torch.no_grad():
        model.cell.gates.weight[:, :n] = 0.0
        model.inject.before.weight.zero_()
        weights = {"weight_hh_l0": model.cell.gates.weight[order, n:], "weight_ih_l0": model.inject.said.weight[order]}
        biases = {"bias_ih_l0": model.inject.said.bias[order], "bias_hh_l0": torch.zeros(4 * n)}
        lstm.load_state_dict(weights | biases)
        x = model.tokens.embed(tokens())
        found = model.solved(x).solution
        expected, (h, c) = lstm(x)
    z: Tensor = found.z
    assert bool(found.converged.all()) and gap(z[:, :, :n], expected) < 1e-9
    assert gap(z[:, -1], torch.cat([h[0], c[0]], 1)) < 1e-9


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_token_never_changes_what_stands_before_it(place: int) -> None:
    model, first = made(), tokens()
    other = first.clone()
    other[:, place] = (other[:, place] + 1) % SMALL.vocabulary
    with torch.no_grad():
        changed = (model(first)[0] - model(other)[0]).abs().amax((0, 2))
    assert float(changed[:place].max() if place else 0.0) < 1e-9 and float(changed[place:].min()) > 1e-7


def test_a_memory_of_one_token_is_one_of_the_whole_past() -> None:
    model, text = made(), tokens(length=9)
    with torch.no_grad():
        whole, _ = model(text)
        memory, parts = None, []
        for piece in (text[:, :4], text[:, 4:5], text[:, 5:]):
            said, memory = model(piece, memory)
            assert memory is not None and memory.states[0].shape[1] == 1
            parts.append(said)
        assert gap(torch.cat(parts, 1), whole) < 1e-9
        forgetful = made(replace(SMALL, memory=0))
        assert forgetful(text)[1] is None


def test_gradients_equal_finite_differences() -> None:
    model, text = made(), tokens(length=4)
    memory = model(tokens(length=3, seed=5))[1]
    weights: list[Any] = list(model.parameters())

    def loss() -> Tensor:
        state, _ = model.states(model.tokens.embed(text), memory)
        return model.tokens.surprise(state, text).sum()

    with torch.no_grad():
        expected, direction = along(lambda: (loss(),), weights)
    assert relative(slope(loss(), weights, direction), expected) < 1e-6


def test_an_unrolled_twin_ends_at_the_equilibrium() -> None:
    model = made()
    x = model.tokens.embed(tokens())
    with torch.no_grad():
        equilibrium = model.states(x)[0]
        distances = [gap(model.unrolled(x, layers=k)[0], equilibrium) for k in (1, 10, 200)]
    assert distances[0] > 1e-2 > distances[1] > distances[2] and distances[2] < 1e-9


def test_dropout_is_one_mask_of_h_for_a_solve() -> None:
    model = made(replace(SMALL, dropout=0.5)).train()
    torch.manual_seed(3)
    read = model.solved(model.tokens.embed(tokens()))
    assert bool(read.solution.converged.all())
    masks = model.cell.draw_masks(read.solution.z, torch.Generator().manual_seed(0))
    assert masks is not None and masks.shape == (2, 1, 5) and set(masks.unique().tolist()) <= {0.0, 2.0}


def test_it_is_as_large_as_it_is_asked_to_be() -> None:
    for other in (
        TransformerModel(TransformerConfig(50, 16, 2, 40)),
        TransformerModel(TransformerConfig.preset("tiny")),
    ):
        config = TrellisConfig(other.config.vocabulary, other.config.width)
        found = TrellisModel.of_size(config, other)
        wider = TrellisModel(replace(found.config, hidden=found.config.hidden + 1))
        assert abs(count(found) - count(other)) <= (count(wider) - count(found)) / 2 + 1


# -- the transformer as published


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_published_transformer_is_the_published_equation(norm: str) -> None:
    """post: LN(h + F(h)), h = LN(z + A(z)); pre: h + F(LN(h)), h = z + A(LN(z)); the input speaks to A alone."""
    torch.manual_seed(0)
    model = TransformerModel(TransformerConfig(9, 8, 2, 12, norm=norm, injection="attention")).to(DOUBLE).eval()
    cell, z, x = model.cell, torch.randn(2, 5, 8, dtype=DOUBLE), torch.randn(2, 5, 8, dtype=DOUBLE)
    with torch.no_grad():
        u = model.inject(x)
        heard = cell.attention(z if norm == "post" else cell.norm1(z), u["said"], None)
        h = z + heard
        h = cell.norm1(h) if norm == "post" else h
        f = h + cell.down(cell.act(cell.up(h if norm == "post" else cell.norm2(h))))
        assert gap(cell(z, u), cell.norm2(f) if norm == "post" else f) < 1e-12
    assert set(u) == {"said"} and not [n for n, _ in model.named_parameters() if "stream" in n]


# -- in the task


def language(**values: Any) -> LanguageConfig:
    small = {"width": 8, "heads": 2, "inner": 12, "memory": 1}
    data = {
        "family": "python-docs",
        "segment": 6,
        "segments": 2,
        "batch_size": 2,
        "train_limit": 500,
        "valid_limit": 60,
    }
    given = {"depth": {"name": "Trellis"}, "data": data, "model": small} | values
    return build(LanguageConfig, given | {"model": small | values.get("model", {})})


@pytest.mark.parametrize("depth", [{"name": "Trellis"}, {"name": "Trellis", "options": {"hidden": 6}}])
def test_the_task_takes_it(depth: dict[str, Any]) -> None:
    model = {} if "options" not in depth else {"heads": 4, "inner": 256}
    task = Language(language(depth=depth, model=model))
    torch.manual_seed(0)
    network = task.model().train()
    loss, figures = task.loss(network, 0)
    loss.backward()
    assert figures["converged"] == 1.0 and all(p.grad is not None for p in network.parameters())
    (row,) = task.evaluate(network.eval())
    assert 1.0 < float(row["perplexity per character"]) < 1000.0


def trellis(**values: Any) -> Callable[[], Any]:
    return lambda: TrellisConfig(**values)


def task(**values: Any) -> Callable[[], Any]:
    return lambda: Language(language(**values))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "vocabulary": (trellis(vocabulary=1), "vocabulary"),
    "width": (trellis(width=0), "width"),
    "hidden": (trellis(hidden=0), "hidden"),
    "hidden a word": (trellis(hidden="many"), "hidden"),
    "memory": (trellis(memory=-1), "memory"),
    "dropout": (trellis(dropout=1.0), "dropout"),
    "cutoffs": (trellis(cutoffs=(300,)), "cutoffs"),
    "divisor": (trellis(divisor=0.5), "divisor"),
    "a transformer's sizes": (lambda: TrellisModel(TransformerConfig()), "config"),
    "a trellis' sizes for a transformer": (lambda: TransformerModel(SMALL), "config"),
    "a state of another width": (
        lambda: TrellisCell(SMALL)(torch.zeros(1, 3, 5), TrellisInjection(SMALL)(torch.zeros(1, 3, 4))),
        "z",
    ),
    "embeddings of another width": (lambda: TrellisInjection(SMALL)(torch.zeros(1, 3, 5)), "x"),
    "as large as nothing": (lambda: TrellisModel.of_size(SMALL, nn.Linear(2, 2)), "other"),
    "an unknown injection": (lambda: TransformerConfig(injection="both"), "injection"),
    "a drive without a stream": (lambda: TransformerConfig(injection="attention", drive=1.0), "drive"),
    "attention in a trellis": (task(model={"attention": "rbf"}), "model.attention"),
    "pre-norm in a trellis": (task(model={"norm": "pre"}), "model.norm"),
    "heads that nobody asks for": (task(depth={"name": "Trellis", "options": {"hidden": 4}}), "model.heads"),
    "no hidden units": (task(depth={"name": "Trellis", "options": {"hidden": 0}}), "depth.options.hidden"),
    "an unknown option": (task(depth={"name": "Trellis", "options": {"layers": 2}}), "layers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sizes_are_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
