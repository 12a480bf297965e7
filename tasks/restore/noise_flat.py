"""The level of noise of any colour in one channel, from the patches in which a picture is flattest.

Grain of film, noise that a camera has smoothed and noise that went through JPEG are not white: their energy is in the
low frequencies, and a patch shows all of it once its plane is taken off. The flattest patches of a noisy picture hold
nothing else. How evenly they do so tells noise from texture: noise is everywhere the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = (8, 16)  # of a patch, pixels: one to tell noise from texture, and one that holds coarser grain
STRIDE = 2  # patches begin so many times in a side
MOST = 1 << 16  # patches
LEAST = 100  # patches, for a quantile worth its name
DEAD = 0.75 / 255  # a patch that is nowhere farther from a plane was drawn, or burnt out, and never had noise
STILL = 1.6 / 255  # second differences of a plane that was rounded to whole grey levels are no larger
EDGE = 2.5 / 255  # so near to black or white noise has been clipped; exactly there no more, where JPEG came after it
CLIPPED = 0.05  # share of such pixels in a patch up to which it is used
LOW, MIDDLE, HIGH = 0.02, 0.05, 0.1  # quantiles of the variance of patches
EVEN = 1.28, 1.38  # how far apart the levels of the lowest and the highest of these are, at most, where there is noise;
# and where it went through JPEG, which takes more of it in one place than in another


@dataclass(frozen=True)
class FlatLevel:
    """sigma: what the flattest patches say. unevenness: 1 for nothing but noise, above 1.4 for texture. dead: share of
    the patches that cannot have had noise. coarse: sigma by larger patches.
    """

    sigma: float
    unevenness: float
    dead: float
    coarse: float

    def is_noise(self, *, lossy: bool = False) -> bool:
        """Whether it is the same everywhere, as texture is not. lossy: of a JPEG file."""
        return self.unevenness < EVEN[lossy]


def flat_level(channel: Tensor, usable: Tensor) -> FlatLevel:
    """Of one channel (H, W) in [0, 1]; usable: (H, W), which pixels were measured. Zeros where there are too few
    patches.
    """
    fine, dead = patch_variances(channel, usable, SIDES[0])
    wide, _ = patch_variances(channel, usable, SIDES[1])
    if len(fine) < LEAST:
        return FlatLevel(0.0, math.inf, dead, 0.0)
    low, middle, high = (level_at(fine, share, SIDES[0]) for share in (LOW, MIDDLE, HIGH))
    coarse = level_at(wide, MIDDLE, SIDES[1]) if len(wide) >= LEAST else middle
    return FlatLevel(middle, high / max(low, 1e-9), dead, coarse)


def patch_variances(channel: Tensor, usable: Tensor, side: int) -> tuple[Tensor, float]:
    """(N,), of all patches that were measured everywhere, are not burnt out and not dead, around their planes; and the
    share of dead ones.
    """
    if min(channel.shape) < side:
        return channel.new_zeros(0), 0.0
    stride = max(side // STRIDE, math.ceil(math.sqrt(channel.numel() / MOST)))
    values, known, unclipped = (
        t.unfold(0, side, stride).unfold(1, side, stride).reshape(-1, side, side)
        for t in (channel, usable, (channel > EDGE) & (channel < 1 - EDGE))
    )
    whole = known.flatten(1).all(1)
    rest, clear = off_plane(values[whole]), unclipped[whole].flatten(1).double().mean(1) >= 1.0 - CLIPPED
    alive = rest.abs().amax((1, 2)) > DEAD
    share = 1.0 - float(alive.double().mean()) if len(alive) else 0.0
    return rest[alive & clear].square().sum((1, 2)) / (side**2 - 3), share


def off_plane(patches: Tensor) -> Tensor:
    """Patches (N, S, S) minus the planes that fit them best."""
    side = patches.shape[1]
    along = torch.arange(side, dtype=patches.dtype) - (side - 1) / 2
    weight = side * along.square().sum()
    rest = patches - patches.mean((1, 2), keepdim=True)
    down = (rest * along[:, None]).sum((1, 2), keepdim=True) / weight
    right = (rest * along).sum((1, 2), keepdim=True) / weight
    return rest - down * along[:, None] - right * along


def drawn(channel: Tensor) -> Tensor:
    """(H, W), the pixels of parts that are plain all over, so that they cannot have had noise: frames, stickers."""
    down = F.pad(channel.diff(n=2, dim=0).abs(), (0, 0, 1, 1))
    right = F.pad(channel.diff(n=2, dim=1).abs(), (1, 1))
    busy = (torch.maximum(down, right) > STILL).to(channel)[None, None]

    # A window of 7 x 7 in which nothing is busy, and all that it covers.
    plain = 1.0 - F.max_pool2d(busy, 7, 1, 3)
    return F.max_pool2d(plain, 7, 1, 3)[0, 0] > 0


def level_at(variances: Tensor, share: float, side: int) -> float:
    """The level of white noise whose patches have this quantile."""
    from scipy.stats import chi2

    freedom = side**2 - 3
    found = float(variances.sort().values[int(share * (len(variances) - 1))])
    return math.sqrt(found / (float(chi2.ppf(share, freedom)) / freedom))
