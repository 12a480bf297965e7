"""Rendered scenes with exact masks: shapes or handwritten digits with a texture of their own, on a texture.

Every pixel is a function of a fixed seed, so that all trainings see the same scenes. A later object hides what lies
below. Backgrounds are the darker ones, but the ranges overlap: colour says something about what is an object, and
nothing about which.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.outputs.seeds import generator

SHAPES = ("disc", "square", "triangle", "ring", "cross")
BLOCK = 100  # scenes that share a generator: the first few are the same, however many are asked for
OBJECTS = 3  # at most, of shapes; digits are larger, so that there are at most two of them
NOISE = 0.03
Drawer = Callable[[int, int, int, torch.Generator], tuple[Tensor, Tensor]]


def uniform(source: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Numbers between ``low`` and ``high``, of the given shape."""
    return low + (high - low) * torch.rand(shape, generator=source)


def texture(
    batch: int, channels: int, height: int, width: int, low: float, high: float, source: torch.Generator
) -> Tensor:
    """(B, C, H, W): two random colours between ``low`` and ``high``, mixed by a grating and by smooth noise."""
    first, second = (uniform(source, low, high, batch, channels, 1, 1) for _ in range(2))
    frequency, angle, phase = (uniform(source, *b, batch, 1, 1) for b in ((0.1, 1.2), (0, math.pi), (0, 2 * math.pi)))
    y, x = torch.arange(height)[:, None], torch.arange(width)
    wave = torch.sin(frequency * (x * angle.cos() + y * angle.sin()) + phase)
    rough = torch.randn(batch, 1, max(2, height // 6), max(2, width // 6), generator=source)
    cloud = F.interpolate(rough, (height, width), mode="bilinear", align_corners=False)[:, 0]
    return first + (second - first) * torch.sigmoid(1.5 * wave + cloud)[:, None]


def shape_at(height: int, width: int, batch: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """One shape per scene: where it is (B, H, W) in {0, 1}, and which (B,) from 1; turned, scaled, anywhere."""
    kind = torch.randint(len(SHAPES), (batch,), generator=source)
    side = min(height, width)

    # Of every scene (B, 1, 1): size, turn and place of its shape.
    radius, angle = uniform(source, 0.17, 0.32, batch, 1, 1) * side, uniform(source, 0, 2 * math.pi, batch, 1, 1)
    top, left = uniform(source, 0.1, 0.9, batch, 1, 1) * height, uniform(source, 0.1, 0.9, batch, 1, 1) * width

    # Pixels in the coordinates (u, v) of the shape, in which its radius is 1.
    y, x = torch.arange(height)[:, None] - top, torch.arange(width) - left
    u, v = (x * angle.cos() + y * angle.sin()) / radius, (y * angle.cos() - x * angle.sin()) / radius
    far, reach = (u * u + v * v).sqrt(), torch.maximum(u.abs(), v.abs())
    third = torch.maximum(v, 0.5 * (math.sqrt(3) * u.abs() - v))  # distance to the nearest side of a triangle
    drawn = [
        far < 1.0,
        reach < 0.85,
        third < 0.6,
        (far < 1.15) & (far > 0.6),
        (reach < 1.15) & (torch.minimum(u.abs(), v.abs()) < 0.35),
    ]
    inside = torch.stack(drawn, 1)[torch.arange(batch), kind]
    return inside.float(), kind + 1


def digits_at(images: Tensor, labels: Tensor) -> Drawer:
    """A drawer of digits (N, 1, 28, 28) with labels (N,), in their own size; digit d is class d + 1."""

    def draw(height: int, width: int, batch: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (batch,), generator=source)
        tall, wide = images.shape[2:]
        tops = torch.randint(height - tall + 1, (batch,), generator=source).tolist()
        lefts = torch.randint(width - wide + 1, (batch,), generator=source).tolist()
        canvas = torch.zeros(batch, height, width)
        for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            canvas[i, top : top + tall, left : left + wide] = images[chosen[i], 0]
        return canvas, labels[chosen] + 1

    return draw


def render(
    count: int,
    shape: tuple[int, int, int],
    purpose: str,
    *,
    draw: Drawer = shape_at,
    objects: int = OBJECTS,
) -> tuple[Tensor, Tensor]:
    """Scenes (count, C, H, W) and masks (count, H, W), both uint8; one to ``objects`` objects each.

    draw: (height, width, batch, source) -> how much each pixel belongs to an object (B, H, W) in [0, 1], and its class
    (B,). A pixel has the class of the last object that covers more than half of it, else 0. purpose: names the random
    numbers, so that the scenes for training and for testing are others.
    """
    blocks = [_block(shape, draw, objects, generator(0, "scenes", purpose, start)) for start in range(0, count, BLOCK)]
    scenes, masks = (torch.cat(parts)[:count] for parts in zip(*blocks, strict=True))
    return scenes, masks


def _block(shape: tuple[int, int, int], draw: Drawer, objects: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    channels, height, width = shape
    scene = texture(BLOCK, channels, height, width, 0.0, 0.65, source)
    mask = torch.zeros(BLOCK, height, width, dtype=torch.uint8)
    there = torch.randint(1, objects + 1, (BLOCK,), generator=source)
    for place in range(objects):
        cover, kind = draw(height, width, BLOCK, source)
        cover = cover * (place < there)[:, None, None]
        own = texture(BLOCK, channels, height, width, 0.35, 1.0, source)
        scene = scene + cover[:, None] * (own - scene)
        mask = torch.where(cover > 0.5, kind[:, None, None].to(torch.uint8), mask)
    scene = scene + NOISE * torch.randn(scene.shape, generator=source)
    return (scene.clamp(0.0, 1.0) * 255).round().to(torch.uint8), mask
