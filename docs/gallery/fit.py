"""``jiio fit`` on a picture that nobody prepared: a generator of patches explains it, tile by tile.

python docs/gallery/fit.py [FOLDER]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from PIL import Image
from show import folder, row
from skimage.data import coffee

from jiio.tasks.cli import main as jiio


def pixels(path: Path) -> torch.Tensor:
    """(3, H, W) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255


def main(where: Path) -> Path:
    with tempfile.TemporaryDirectory() as work:
        picture, out = Path(work) / "coffee.png", Path(work) / "fit"
        Image.fromarray(coffee()[60:190, 180:330]).save(picture)

        # The command itself: jiio fit coffee.png --output fit --restarts 0
        code = jiio(["fit", str(picture), "--output", str(out), "--restarts", "0"])
        if code:
            raise SystemExit(code)

        told = json.loads((out / "fit.json").read_text())
        given, fitted = pixels(picture), pixels(out / "fitted.png")
        shown = [
            ("the picture", given),
            (f"the fit, {told['PSNR']:.1f} dB", fitted),
            ("five times the difference", 0.5 + 2.5 * (given - fitted)),
        ]
        return row(where / "fit.png", shown)


if __name__ == "__main__":
    main(folder())
