"""How sure a restoration is: the error to be expected of every pixel, beside the one that was made.

python docs/gallery/uncertainty.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, panel, psnr, pyplot, save
from skimage.data import camera

import jiio
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.confidence import expected_error

SIGMA = 25 / 255


def main(where: Path) -> Path:
    clean = torch.from_numpy(camera()[40:200, 150:310].copy())[None, None] / 255  # (1, 1, 160, 160)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    restorer = jiio.Restorer.load("prior-grey")
    restored = restorer(noisy, sigma=SIGMA).image

    # Measured again with fresh noise, four times, and restored again: how far do the results scatter?
    expected = expected_error(restorer.restorer, restored, Denoise(SIGMA))
    near = torch.nn.functional.pad((restored - clean).square(), (3, 3, 3, 3), mode="replicate")
    made = torch.nn.functional.avg_pool2d(near, 7, stride=1).sqrt()  # over the same 7 x 7 windows
    pair = torch.stack([expected.flatten(), made.flatten()])
    agreement = float(torch.corrcoef(pair)[0, 1])

    figure, axes = pyplot.subplots(1, 4, figsize=(9.6, 2.75), layout="constrained")
    panel(axes[0], noisy[0], f"noise 25, {psnr(noisy, clean):.1f} dB")
    panel(axes[1], restored[0], f"restored, {psnr(restored, clean):.1f} dB")
    heat = {"cmap": "magma", "vmin": 0, "vmax": 20}
    panel(axes[2], 255 * expected[0], "error to be expected, grey levels", **heat)
    panel(axes[3], 255 * made[0], f"error made (correlation {agreement:.2f})", **heat)
    figure.colorbar(axes[3].images[0], ax=axes[2:], shrink=0.75)
    return save(where / "uncertainty.png", figure)


if __name__ == "__main__":
    main(folder())
