"""Batches of images that are pure functions of (seed, step)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import fail
from jiio.outputs.seeds import generator
from jiio.outputs.shares import drawn, rows
from jiio.tasks.frame.files import InputError

from .config import DataConfig


def resized(images: Tensor, size: int, channels: int) -> Tensor:
    """Images (N, c, h, w) at size x size (bicubic, antialiased) with the given number of channels."""
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601, as Pillow's own grey
        images = (images * weights).sum(1, keepdim=True)
    if images.shape[2:] != (size, size):
        images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return images.expand(-1, channels, -1, -1).contiguous()


RESIDENT = 2 << 30  # bytes of training images that may lie on a GPU


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def batch_indices(count: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Which of ``count`` images make up the batch of this step: (batch_size,), a pure function of (seed, step).

    Every epoch is a fresh permutation of all images; a batch may begin in one epoch and end in the next.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return torch.stack([_order(count, seed, place // count)[place % count] for place in places])


def resident(images: Tensor, device: torch.device) -> Tensor:
    """Training images where the network computes, so that no batch has to be copied; as they are where they are read
    from a disk or would take too much of a GPU.
    """
    fits = isinstance(images, Tensor) and images.nbytes <= RESIDENT
    return images.to(device) if fits else images


def training_batch(images: Tensor, config: DataConfig, *, seed: int, step: int) -> Tensor:
    """The images (B, C, H, W) of one training step, mirrored and shifted at random as the configuration asks."""
    if len(images) == 0:
        fail("data", "at least one training image", "none", "Lower data.test_share.", InputError)
    chosen = images[batch_indices(len(images), config.batch_size, seed=seed, step=step)[rows(config.batch_size)]]
    return augment(chosen, config, generator=generator(seed, "augment", step))


def augment(images: Tensor, config: DataConfig, *, generator: torch.Generator) -> Tensor:
    """Each image mirrored with chance one half and shifted by up to ``config.shift`` pixels, its edge repeated.

    The numbers are drawn by the generator, the images are moved where they are: on every device the same.
    """
    batch = len(images)
    if config.mirror:
        flip = drawn(lambda n: torch.rand(n, 1, 1, 1, generator=generator), batch) < 0.5
        images = torch.where(flip.to(images.device), images.flip(3), images)
    if config.shift > 0:
        moves = drawn(lambda n: torch.randint(2 * config.shift + 1, (n, 2), generator=generator), batch)
        images = shifted(images, moves - config.shift)
    return images


def shifted(images: Tensor, moves: Tensor) -> Tensor:
    """Images (B, C, H, W) moved up and left by (B, 2) whole pixels, their edges repeated; without a loop over them."""
    places = []
    for axis, size in enumerate(images.shape[2:]):
        every = torch.arange(size, device=images.device) + moves[:, axis, None].to(images.device)
        places.append(every.clamp(0, size - 1))  # (B, size): the row or column that comes to each place
    down, across = places
    return images.take_along_dim(down[:, None, :, None], 2).take_along_dim(across[:, None, None], 3)
