"""How far each restored pixel may be from the truth, from an ensemble of noise draws.

A parametric bootstrap (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979): the
restored picture stands in for the clean one, is measured again with fresh noise of the same level, and restored again.
How far the second restorations are from the first is how far the first may be from the truth: what the noise does to
the result, and what the restorer smooths away. What the first one lost cannot be lost again: texture reads too low.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.tasks.maps.base import LinearMap

from .base import AbstractRestorer
from .tiles import restore_tiled

DRAWS = 4
NEAR = 7  # pixels to a side over which the squared deviation is averaged: so few draws are noisy for one pixel alone


def expected_error(
    restorer: AbstractRestorer,
    image: Tensor,
    operator: LinearMap,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[..., object] | None = None,
    **settings: Any,
) -> Tensor:
    """Root mean square deviation of the ensemble, in the units of the image.

    Args:
        image: (B, C, H, W) on the CPU, the restored image.
        operator: the map of its measurement, with sigma above 0.
        draws: restorations to be compared.
        progress, settings: as in :func:`jiio.tasks.restore.tiles.restore_tiled`.

    Returns: (1, 1, H, W), the mean over batch and channels.
    """
    total = image.new_zeros(1, 1, *image.shape[2:])
    for draw in range(draws):
        y = operator.measure(image, generator(seed, "confidence", draw))
        again = restore_tiled(restorer, y, operator, progress=progress, **settings).image
        total += (operator.keep(y, again) - image).square().mean((0, 1), keepdim=True)

    # (1, 1, H, W): the mean over the draws, and then over a small square around every pixel.
    near = F.pad(total / draws, (NEAR // 2,) * 4, mode="replicate")
    return F.avg_pool2d(near, NEAR, stride=1).sqrt()
