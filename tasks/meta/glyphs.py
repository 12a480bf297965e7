"""Characters of many scripts in the fonts that matplotlib ships: a labelled image set that needs no network.

A class is a character; its images are the fonts that have it, each slightly turned, sheared, scaled and moved, as
drawers do. The alphabets of the test classes do not occur in training, as in Omniglot.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.sources import AbstractFamily, Raw

if TYPE_CHECKING:
    import numpy as np

FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
# Script -> ranges of code points, both ends included.
TRAINED = {
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0x30, 0x39)),
    "Latin, extended": ((0xC6, 0xC6), (0xD8, 0xD8), (0xDE, 0xDF), (0xF0, 0xF0), (0x180, 0x1BF)),
    "phonetic": ((0x250, 0x2AF),),
    "Cyrillic": ((0x402, 0x44F), (0x460, 0x481)),
    "Georgian": ((0x10D0, 0x10FA),),
    "arrows": ((0x2190, 0x21BB),),
    "mathematics": ((0x2200, 0x222B), (0x2264, 0x2292)),
    "shapes": ((0x25A0, 0x25CF),),
}
TESTED = {"Greek": ((0x391, 0x3C9), (0x3D0, 0x3D6)), "Armenian": ((0x531, 0x556), (0x561, 0x587))}
LEAST = 12  # fonts that must have a character
SIDE = 28


class Glyphs(AbstractFamily):
    """The characters in ``TRAINED`` to train on and those in ``TESTED`` to test on, with ink 1, 28 x 28."""

    labelled = apart = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        train, train_labels, test, test_labels = glyphs()
        return Raw(train, test, train_labels, test_labels)


@functools.lru_cache(maxsize=1)
def glyphs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train, train labels, test, test labels): images (N, 1, 28, 28) in [0, 1] with ink 1, labels (N,) from 0.

    Pure: the fonts, the ranges above and a fixed seed decide every pixel. A character that looks like an earlier one
    (the capital alpha and A) is left out.
    """
    fonts = load_fonts()
    seen: set[bytes] = set()
    train, train_labels = render(TRAINED, fonts, seen)
    test, test_labels = render(TESTED, fonts, seen)
    return distort(train, "train"), train_labels, distort(test, "test"), test_labels


def load_fonts() -> list[tuple[set[int], Any]]:
    """The code points of every font, and the font at a size that fits the images."""
    import matplotlib
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = [folder / f"{name}.ttf" for name in FONTS]
    return [(set(FT2Font(str(p)).get_charmap()), ImageFont.truetype(str(p), 22)) for p in paths if p.exists()]


def render(
    scripts: dict[str, tuple[tuple[int, int], ...]], fonts: list[tuple[set[int], Any]], seen: set[bytes]
) -> tuple[Tensor, Tensor]:
    """Every character in every font that has it, centred; those drawn like one in ``seen`` are passed over."""
    import numpy as np

    images, labels = [], []
    for ranges in scripts.values():
        for code in (c for low, high in ranges for c in range(low, high + 1)):
            having = [font for known, font in fonts if code in known]
            if len(having) < LEAST:
                continue

            # In the first font two characters look alike or they do not; an empty one is a space.
            drawn = [draw(chr(code), font) for font in having]
            look = drawn[0].tobytes()
            if look not in seen and drawn[0].any():
                seen.add(look)
                labels += [0 if not labels else labels[-1] + 1] * len(drawn)
                images += drawn

    return torch.from_numpy(np.stack(images))[:, None], torch.tensor(labels)


def draw(character: str, font: Any) -> np.ndarray:
    """(SIDE, SIDE) float32 in [0, 1], the ink of the character in the middle."""
    import numpy as np
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (SIDE, SIDE))
    left, top, right, bottom = font.getbbox(character)
    corner = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, character, fill=255, font=font)
    return np.asarray(canvas, np.float32) / 255.0


def distort(images: Tensor, purpose: str) -> Tensor:
    """Each image by a random affine map: turned by up to 12 degrees, sheared, scaled and moved a little."""
    source = generator(0, "glyphs", purpose)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=source)

    angle, shear = between(-math.pi / 15, math.pi / 15), between(-0.2, 0.2)
    wide, high = between(0.95, 1.25), between(0.95, 1.25)  # above 1 shrinks
    rows = [
        torch.stack([wide * angle.cos(), shear - angle.sin(), between(-0.12, 0.12)], 1),
        torch.stack([angle.sin(), high * angle.cos(), between(-0.12, 0.12)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
