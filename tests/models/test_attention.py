"""Attention against a loop over pairs, and its kernels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jiio.models import KernelAttention, RelativeAttention

DOUBLE = torch.float64


def looped(attention: RelativeAttention | KernelAttention, z: Tensor, said: Tensor, past: Tensor | None) -> Tensor:
    """One sample, head by head, query by query, key by key, from the equations. z (T, width)."""
    heads, size = attention.heads, attention.size
    rows = z @ attention.project.weight.T + said
    both = rows if past is None else torch.cat([past, rows])
    before = len(both) - len(rows)
    out = torch.zeros(len(z), heads * size, dtype=DOUBLE)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        if isinstance(attention, RelativeAttention):
            q, k, v = (block[:, part] for block in both.chunk(3, dim=1))
        else:
            q, v = (block[:, part] for block in both.chunk(2, dim=1))
            k = q
        for i in range(before, len(both)):
            scores, values = [], []
            for j in range(i + 1):
                d = i - j
                if attention.span is not None and d >= attention.span:
                    continue
                if isinstance(attention, RelativeAttention):
                    w = attention.width
                    omega = [1e-4 ** (m / (w // 2)) for m in range(w // 2)]
                    r = torch.tensor([math.sin(d * o) for o in omega] + [math.cos(d * o) for o in omega], dtype=DOUBLE)
                    place = (attention.place.weight @ r)[part]
                    score = (q[i] + attention.content_bias[h]) @ k[j] + (q[i] + attention.place_bias[h]) @ place
                    scores.append(score / math.sqrt(size))
                else:
                    f = q[i] @ k[j] if attention.kernel == "exponential" else -0.5 * (q[i] - k[j]).square().sum()
                    a = attention.amplitude[h]
                    wave = sum(a[m] ** 2 * math.cos(d * 1e-4 ** (m / len(a))) for m in range(len(a)))
                    scores.append(f / math.sqrt(size) + wave)
                values.append(v[j])
            weights = torch.stack(scores).exp()
            out[i - before, part] = (weights / weights.sum()) @ torch.stack(values)
    return out @ attention.out.weight.T


@pytest.mark.parametrize("kind", ["relative", "rbf", "exponential"])
@pytest.mark.parametrize(("length", "past", "span"), [(1, 0, None), (5, 0, None), (5, 3, None), (4, 6, 3), (2, 1, 1)])
def test_attention_equals_the_loop_over_pairs(kind: str, length: int, past: int, span: int | None) -> None:
    torch.manual_seed(0)
    if kind == "relative":
        attention: RelativeAttention | KernelAttention = RelativeAttention(8, 2, span=span)
    else:
        attention = KernelAttention(8, 2, kernel=kind, span=span)
    attention = attention.to(DOUBLE)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
        z, said = torch.randn(2, length, 8, dtype=DOUBLE), torch.randn(2, length, attention.parts * 8, dtype=DOUBLE)
        old = torch.randn(2, past, attention.parts * 8, dtype=DOUBLE) if past else None
        found = attention(z, said, old)
        expected = torch.stack([looped(attention, z[b], said[b], None if old is None else old[b]) for b in range(2)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", ["rbf", "exponential"])
def test_kernels_are_symmetric_and_positive_definite(kernel: str) -> None:
    torch.manual_seed(0)
    attention = KernelAttention(8, 2, kernel=kernel).to(DOUBLE)
    f = torch.randn(1, 2, 9, 4, dtype=DOUBLE)
    with torch.no_grad():
        attention.amplitude.normal_()
        log = attention.scores(f, f)
        causal = torch.tril(torch.ones(9, 9, dtype=torch.bool))
        k = torch.where(causal, log, log.transpose(2, 3)).exp()  # below the diagonal stands all that is ever used
        features = k[0]
    assert float(torch.linalg.eigvalsh(features).min()) > -1e-9 * float(features.max())
