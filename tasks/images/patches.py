"""Training patches: small squares cut from pictures of any size, a pure function of (seed, step)."""

from __future__ import annotations

import torch
from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.outputs.shares import rows


def draw_patches(families: list[list[Tensor]], *, channels: int, size: int, batch: int, seed: int, step: int) -> Tensor:
    """Patches (batch, channels, size, size) in [0, 1]; every family has the same share, every picture of one too.

    Patches are turned by quarters and mirrored at random. A picture smaller than a patch is continued by reflection.
    """
    source, mine = generator(seed, "patches", step), range(batch)[rows(batch)]
    patches = []
    for place in range(mine.stop):
        # One source for all: where a step is divided, what belongs to others is drawn and thrown away.
        pictures = families[below(len(families), source)]
        patch = draw_patch(pictures[below(len(pictures), source)], size, source)
        patch = patch if patch.shape[0] == channels else tint(patch, source)
        if place in mine:
            patches.append(patch)
    return torch.stack(patches)


def draw_patch(picture: Tensor, size: int, source: torch.Generator) -> Tensor:
    """One patch (C, size, size) in [0, 1] of a picture uint8 (C, H, W), turned and mirrored at random."""
    _, height, width = picture.shape
    top, left = below(max(height - size, 0) + 1, source), below(max(width - size, 0) + 1, source)
    patch = picture[:, top : top + size, left : left + size].float() / 255.0

    # Too small a picture is continued to the right and below.
    missing = (0, size - patch.shape[2], 0, size - patch.shape[1])
    if any(missing):
        patch = torch.nn.functional.pad(patch[None], missing, mode="reflect")[0]

    # One number for all eight symmetries of the square.
    turn = below(8, source)
    patch = torch.rot90(patch, turn % 4, (1, 2))
    return patch.flip(1) if turn >= 4 else patch


def below(n: int, source: torch.Generator) -> int:
    """A random whole number from 0 to n - 1."""
    return int(torch.randint(n, (), generator=source))


def tint(grey: Tensor, source: torch.Generator) -> Tensor:
    """A colour picture (3, H, W) with the detail of a grey one (1, H, W), in [0, 1].

    Every channel is the grey value to a power of its own, between two random colours: channels that share their detail,
    as those of a photograph mostly do. It lets a colour prior learn texture from sets that only exist in grey.
    """
    power = 2.0 ** (torch.rand(3, 1, 1, generator=source) - 0.5)
    low = 0.3 * torch.rand(3, 1, 1, generator=source)
    high = 0.7 + 0.3 * torch.rand(3, 1, 1, generator=source)
    return low + (high - low) * grey**power
