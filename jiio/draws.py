"""Random numbers where they are needed: the one rule for draws and devices.

Numbers are drawn on the device of the generator, or on that of ``like`` where there is none, and land on that of
``like``. So one seed means the same numbers on every machine, a generator of the CPU serves tensors of any device, and
nobody has to remember to move a draw. In a step whose batch is divided, samples' are drawn for the whole of it, see
:func:`jiio.outputs.shares.drawn`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import ArgumentTypeError, fail
from .outputs.shares import drawn


def check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """A generator or None; raises ArgumentTypeError otherwise."""
    if generator is not None and not isinstance(generator, torch.Generator):
        fail("generator", "a torch.Generator or None", generator, error=ArgumentTypeError)
    return generator


def normal_like(like: Tensor, generator: torch.Generator | None = None, shape: Sequence[int] | None = None) -> Tensor:
    """Gaussian numbers, samples first, with the type and on the device of ``like``, in its shape or another."""
    size, place = like.shape if shape is None else torch.Size(shape), place_of(like, generator)

    def draw(n: int) -> Tensor:
        return torch.randn((n, *size[1:]), dtype=like.dtype, device=place, generator=generator)

    return drawn(draw, size[0]).to(like.device)


def uniform_like(like: Tensor, generator: torch.Generator | None = None, shape: Sequence[int] | None = None) -> Tensor:
    """Numbers between 0 and 1 with the type and on the device of ``like``, in its shape or another.

    For weights as well as for samples, so the same for every share of a batch.
    """
    size, place = like.shape if shape is None else torch.Size(shape), place_of(like, generator)
    return torch.rand(size, dtype=like.dtype, device=place, generator=generator).to(like.device)


def place_of(like: Tensor, generator: torch.Generator | None) -> torch.device:
    """The device on which numbers for ``like`` are drawn."""
    return like.device if generator is None else generator.device
