"""A camera of one's own, written as three lines of Python, and the same prior: nothing is trained.

python docs/gallery/own_physics.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, psnr, row
from skimage.data import camera

import jiio

SIGMA = 0.01


def shaken(image: torch.Tensor) -> torch.Tensor:
    """Two exposures while the hand moved to the lower right, and every other pixel of a row was read out."""
    moved = torch.roll(image, (2, 3), (2, 3))
    both = 0.6 * image + 0.4 * moved
    return both[..., ::2]


def main(where: Path) -> Path:
    clean = torch.from_numpy(camera()[60:188, 150:278].copy())[None, None] / 255  # (1, 1, 128, 128)
    exact = shaken(clean)  # (1, 1, 128, 64)
    measured = exact + SIGMA * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))

    # The map is a function and nothing else: jiio tries it out, finds it linear, and takes the adjoint of autograd.
    restorer = jiio.Restorer.load("prior-grey")
    done = restorer(measured, shaken, sigma=SIGMA, shape=(1, 128, 128))
    print(f"converged: {bool(done.converged.all())}, {done.evaluations} evaluations, {done.vjps} VJPs")

    # Beside it what a person would try first: the pixels stretched to the size of the picture.
    stretched = torch.nn.functional.interpolate(measured, size=(128, 128), mode="bicubic")
    shown = [
        ("the scene", clean),
        ("measured: 64 of 128 columns", measured),
        (f"stretched, {psnr(stretched, clean):.1f} dB", stretched),
        (f"restored, {psnr(done.image, clean):.1f} dB", done.image),
    ]
    return row(where / "own_physics.png", [(caption, image[0]) for caption, image in shown])


if __name__ == "__main__":
    main(folder())
