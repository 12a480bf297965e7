"""The number type that a prior computes in: bfloat16 where the processor has it and the solve does not ask for more."""

from __future__ import annotations

import contextlib

import torch

import jiio
from jiio.models.images.prior import ImagePrior
from jiio.tasks.frame.precision import in_hardware, inside

FINEST = 4e-3  # relative tolerance: about the rounding of bfloat16, which no residual falls below


def computing(prior: ImagePrior, precision: str, tolerance: jiio.Tolerance) -> contextlib.AbstractContextManager[None]:
    """Within, the cell of the prior computes in that type. precision: auto, float32 or bfloat16.

    ``auto`` is bfloat16 on a CPU that multiplies such numbers itself, for weights of float32 and a tolerance that it
    can meet; the state, the energy and the picture stay float32 in any case.
    """
    weight = prior.head.conv.weight
    low = precision == "bfloat16" or (
        precision == "auto" and tolerance.rtol >= FINEST and in_hardware(torch.bfloat16, weight.device)
    )
    return inside(prior.cell, torch.bfloat16 if low and weight.dtype == torch.float32 else torch.float32)
