"""A photograph with scratches, a hole, blur and noise, and the joint iterate on its way to the restored one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.tasks.frame import drawings
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Inpaint, LinearMap
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.kernels import gaussian_kernel
from jiio.tasks.maps.several import composed
from jiio.tasks.restore.public import Restorer

SIZE = 512  # pixels, the whole height of scikit-image's photograph of an astronaut
WIDTH = 1.2  # of the blur, pixels
SIGMA = 0.03  # of the noise, about 8 of 255 grey levels
STEPS = 8  # of each of the two solves
EVERY = 1  # steps between two frames
# Scratches from (x, y) to (x, y) and a hole around (x, y), in shares of the picture.
SCRATCHES = (
    ((0.05, 0.0), (0.42, 0.62)),
    ((0.95, 0.05), (0.5, 0.35)),
    ((0.0, 0.8), (1.0, 0.66)),
    ((0.72, 1.0), (0.62, 0.1)),
)
HOLE, RADIUS = (0.22, 0.2), 0.035


def photograph(size: int = SIZE) -> Tensor:
    """(1, 3, size, size) in [0, 1]: the upper left part of the photograph."""
    from skimage.data import astronaut

    return torch.from_numpy(astronaut()[:size, :size].copy()).permute(2, 0, 1)[None].float() / 255


def known(size: int) -> Tensor:
    """(1, 1, size, size), 0 where the picture is scratched or has a hole."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(canvas)
    for start, end in SCRATCHES:
        draw.line([(size * start[0], size * start[1]), (size * end[0], size * end[1])], 0, max(2, round(size / 90)))
    x, y, r = size * HOLE[0], size * HOLE[1], size * RADIUS
    draw.ellipse([x - r, y - r, x + r, y + r], 0)
    return torch.from_numpy(np.array(canvas) > 0)[None, None].float()


def damage(size: int) -> LinearMap:
    """Blur, then missing pixels, with noise on what is left: the map of images (1, 3, size, size)."""
    blurred = blur(gaussian_kernel(WIDTH), (size, size), boundary="symmetric")
    return composed(blurred, Inpaint(known(size), SIGMA))


class Photo:
    """The photograph, what was measured of it, and one restoration with the images on the way.

    clean, measured, restored: (1, 3, H, W). way: images (1, 3, H, W) after every step. calls: evaluations and
    VJPs.
    """

    def __init__(self, seed: int, device: torch.device, size: int = SIZE, steps: int = STEPS) -> None:
        self.clean, physics = photograph(size), damage(size)
        self.measured = physics.measure(self.clean, generator(seed, "demo photo"))
        self.way: list[Tensor] = []

        # Few steps, as they are shown one by one: the solve is near its end by then, and not there.
        how: dict[str, Any] = {"max_steps": steps, "callback": self._keep, "on_failure": "ignore"}
        done = Restorer.load("prior-colour", device=device)(self.measured, physics, **how)
        self.restored, self.calls = done.image, (done.evaluations, done.vjps)

    def _keep(self, step: int, z: Any, x: Tensor, value: Tensor) -> None:
        """``callback`` of :func:`jiio.solve`."""
        if step % EVERY == 0:
            self.way.append(x.detach().to("cpu", copy=True))

    @property
    def row(self) -> dict[str, str | float]:
        """The figures: PSNR in dB before and after, and what it cost."""
        before, after = (float(psnr(image.clamp(0, 1), self.clean)) for image in (self.measured, self.restored))
        evaluations, vjps = self.calls
        return {"measured, dB": before, "restored, dB": after, "evaluations": evaluations, "VJPs": vjps}

    def moving(self) -> bytes:
        """A WebP that moves: the measurement, every frame of the way, and the end, which stays."""
        frames = [picture(image) for image in (self.measured, *self.way, self.restored)]
        durations = [900, *[160] * len(self.way), 2500]
        buffer = io.BytesIO()
        settings: dict[str, Any] = {"save_all": True, "duration": durations, "loop": 0, "quality": 72, "method": 4}
        frames[0].save(buffer, "WEBP", append_images=frames[1:], **settings)
        return buffer.getvalue()

    def sheet(self) -> bytes:
        """A PNG: measured, restored and clean beside each other."""
        return drawings.sheet({"": torch.cat([self.measured, self.restored, self.clean])}, scale=1)


def picture(image: Tensor) -> Any:
    """(1, 3, H, W) as a picture of Pillow."""
    from PIL import Image

    return Image.fromarray(drawings.to_uint8(image)[0])


def still(image: Tensor) -> bytes:
    """(1, 3, H, W) as a WebP."""
    buffer = io.BytesIO()
    picture(image).save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
