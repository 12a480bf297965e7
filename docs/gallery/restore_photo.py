"""A colour photograph with noise on it, restored by the prior that comes with jiio.

python docs/gallery/restore_photo.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, psnr, row
from skimage.data import chelsea

import jiio

SIGMA = 25 / 255  # of the noise; images are in [0, 1]


def main(where: Path) -> Path:
    # A cat, (1, 3, 192, 192), with white noise on every pixel.
    clean = torch.from_numpy(chelsea()[20:212, 120:312].copy()).permute(2, 0, 1)[None] / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = clean + SIGMA * noise

    # One call: state, multiplier and image of the energy's equilibrium, to a tolerance of 1e-3.
    restorer = jiio.Restorer.load("prior-colour")
    done = restorer(noisy, sigma=SIGMA)
    print(f"converged: {bool(done.converged.all())}, {done.evaluations} evaluations, {done.vjps} VJPs")

    # What the prior took for noise should look like noise; structure in it would be detail that was lost.
    removed = 0.5 + (noisy - done.image)
    shown = [
        ("clean", clean),
        (f"noise 25, {psnr(noisy, clean):.1f} dB", noisy),
        (f"restored, {psnr(done.image, clean):.1f} dB", done.image),
        ("what was taken away", removed),
    ]
    return row(where / "restore_photo.png", [(caption, image[0]) for caption, image in shown])


if __name__ == "__main__":
    main(folder())
