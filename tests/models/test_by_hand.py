"""One application of a cell against its equations, written out again with copied weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import gap
from jiio.models import ConvexPotential, DenseCell, LyapunovCell, MultiscaleConfig, TransformerConfig
from jiio.models.sequences.crossmodal import CrossModalCell
from jiio.models.sequences.transformer import TransformerBlock

DOUBLE = torch.float64


def shaken(module: torch.nn.Module) -> Any:
    """Every weight moved at random, so that no gain is one and no bias zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype, generator=draw))
    return module


def group(x: Tensor, norm: Any) -> Tensor:
    """Group norm from its definition."""
    b, c, h, w = x.shape
    parts = x.reshape(b, norm.num_groups, -1)
    middle, spread = parts.mean(2, keepdim=True), parts.var(2, unbiased=False, keepdim=True)
    out = ((parts - middle) / (spread + norm.eps).sqrt()).reshape(b, c, h, w)
    return out if norm.weight is None else out * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_the_multiscale_cell_is_that_of_mdeq() -> None:
    """Residual blocks, then the fusion of Bai, Koltun and Kolter (2020), on three branches."""
    torch.manual_seed(0)
    config = MultiscaleConfig(
        (4, 6, 8), expansion=2, groups=2, fusion_groups=2, weight_norm=False, head_channels=(2, 2, 2)
    )
    cell = shaken(config.cell().double())
    z = tuple(torch.randn(2, c, 8 // 2**i, 8 // 2**i, dtype=DOUBLE) for i, c in enumerate(config.channels))
    u = torch.randn(2, 4, 8, 8, dtype=DOUBLE)
    masks = tuple(torch.rand(2, c, 1, 1, dtype=DOUBLE) for c in config.channels)

    branches = []
    for i, block in enumerate(cell.blocks):
        y = group(F.conv2d(z[i], block.conv1.weight, padding=1), block.norm1).relu()
        y = F.conv2d(y, block.conv2.weight, padding=1) * masks[i] + (u if i == 0 else 0)
        branches.append(group((group(y, block.norm2) + z[i]).relu(), block.norm3))
    want = []
    for i in range(3):
        total = branches[i]
        for j in range(3):
            layers = [] if i == j else list(cell.fusion.paths[f"{j}_{i}"])
            heard = branches[j]
            for layer in layers:
                if isinstance(layer, torch.nn.Conv2d):
                    down = j < i
                    heard = F.conv2d(heard, layer.weight, stride=2 if down else 1, padding=1 if down else 0)
                elif isinstance(layer, torch.nn.GroupNorm):
                    heard = group(heard, layer)
                else:
                    heard = heard.relu()
            assert j >= i or len(layers) == 3 * (i - j) - 1  # conv, norm, and ReLU between them
            for _ in range(max(j - i, 0)):
                heard = heard.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            total = total + heard if j != i else total
        want.append(group(F.conv2d(total.relu(), cell.fusion.mix[i].weight), cell.fusion.norms[i]))
    for got, one in zip(cell(z, u, masks), want, strict=True):
        assert gap(got, one) < 1e-10


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    spread = x.var(-1, unbiased=False, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (spread + norm.eps).sqrt() * norm.weight + norm.bias


def attended(block: Any, seen: Tensor, said: Tensor, past: Tensor) -> Tensor:
    """Transformer-XL attention, one query and key at a time."""
    config, attention = block.config, block.attention
    width, size = config.width, config.width // config.heads
    own = seen @ attention.project.weight.T + said
    everything = torch.cat([past, own], dim=1)
    out = torch.zeros_like(seen)
    for b in range(seen.shape[0]):
        for i in range(seen.shape[1]):
            now = i + past.shape[1]
            for h in range(config.heads):
                part = slice(h * size, (h + 1) * size)
                q, scores, values = own[b, i, :width][part], [], []
                for j in range(now + 1):
                    if config.span is not None and now - j >= config.span:
                        continue
                    angles = (now - j) * torch.exp(
                        -math.log(1e4) * torch.arange(width // 2, dtype=DOUBLE) / (width // 2)
                    )
                    place = (attention.place.weight @ torch.cat([angles.sin(), angles.cos()]))[part]
                    k = everything[b, j, width : 2 * width][part]
                    score = (q + attention.content_bias[h]) @ k + (q + attention.place_bias[h]) @ place
                    scores.append(score / size**0.5)
                    values.append(everything[b, j, 2 * width :][part])
                out[b, i, part] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out @ attention.out.weight.T


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("span", [None, 3])
def test_a_transformer_layer_is_that_of_transformer_xl(norm: str, span: int | None) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(11, 8, 2, 12, memory=4, norm=norm, span=span, activation="relu", dropout=0.2)
    block = shaken(TransformerBlock(config).double())
    z, said = torch.randn(2, 3, 8, dtype=DOUBLE), torch.randn(2, 3, 24, dtype=DOUBLE)
    past = torch.randn(2, 2, 24, dtype=DOUBLE)
    masks = (torch.rand(2, 1, 8, dtype=DOUBLE), torch.rand(2, 1, 12, dtype=DOUBLE))

    heard = attended(block, z if norm == "post" else layer_norm(z, block.norm1), said, past) * masks[0]
    h = z + heard
    h = layer_norm(h, block.norm1) if norm == "post" else h
    inner = h if norm == "post" else layer_norm(h, block.norm2)
    inner = (inner @ block.up.weight.T + block.up.bias).relu() * masks[1]
    h = h + inner @ block.down.weight.T + block.down.bias
    want = layer_norm(h, block.norm2) if norm == "post" else h
    assert gap(block(z, {"said": said, "past": past}, masks), want) < 1e-9


def test_padded_tokens_of_two_streams_stay_zero_and_unheard() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(11, 8, 2, 12, activation="relu")
    cell = shaken(CrossModalCell(config).double())
    there = (torch.tensor([1.0, 1.0, 0.0], dtype=DOUBLE), torch.tensor([1.0, 0.0], dtype=DOUBLE))
    z, u = [], []
    for mask in there:
        shape = (2, len(mask), 8)
        z.append(torch.randn(shape, dtype=DOUBLE))
        parts = cell.blocks[0].attention.project.weight.shape[0]
        said = torch.randn(2, len(mask), parts, dtype=DOUBLE)
        u.append(
            {"said": said, "stream": torch.randn(shape, dtype=DOUBLE), "there": mask[None, :, None].expand(2, -1, 1)}
        )
    out = cell(tuple(z), tuple(u))
    assert not bool(out[0][:, 2].any()) and not bool(out[1][:, 1].any())
    assert float(out[0][:, :2].detach().abs().min()) > 0

    # What stands at a padded place of one stream is not heard by the other.
    z[1] = z[1].clone()
    z[1][:, 1] += 7.0
    assert gap(cell(tuple(z), tuple(u))[0], out[0]) < 1e-12


def test_the_violation_is_relative_to_the_field() -> None:
    torch.manual_seed(0)
    cell = LyapunovCell(DenseCell(6, scaling="none"), ConvexPotential(6, widths=(5,))).double()
    with torch.no_grad():
        cell.cell.weight.mul_(40.0)
    z, u = torch.randn(64, 6, dtype=DOUBLE), torch.randn(64, 6, dtype=DOUBLE)
    field, value, gradient = cell.parts(z, u)
    rise = ((gradient * field).sum(1) + cell.alpha * value).clamp_min(0)
    want = rise / (gradient.norm(dim=1) * field.norm(dim=1))
    assert float(want.detach().max()) > 0 and gap(cell.violation(z, u), want) < 1e-9
