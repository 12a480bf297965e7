"""The options of ``jiio restore``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_threads, named

FAMILIES = {"image-space": "prior", "direct": "direct"}  # --restorer -> the name of its weights up to -grey or -colour
MAX_SIGMA = 128.0
NOISES = ("white", "poisson", "low-light")
SUFFIX_OF = {"report": ".html", "confidence": ".png", "find-scratches": ".png"}  # of what else is written


@dataclass(frozen=True)
class RestoreOptions:
    """Which pictures are restored, from what, and how.

    Args:
        pictures: pictures, or folders of them, searched with the folders inside
        output: a file or a folder (default: photo-restored.png beside photo.png, photos-restored/ beside photos/)
        sigma: noise in 8-bit grey levels, 0 to 128, whatever the depth of the picture (default: estimated)
        noise: white, poisson where it depends on brightness (microscopes, telescopes), low-light for the same in a
            photograph (default: white)
        range: the stored numbers that are black and white, such as 0,4095 (default: the range that the picture uses)
        mask: a picture of the same size: white pixels are kept, black ones are missing
        missing: pixels of this colour are missing: '#ff00ff', or a grey level from 0 to 255
        blur: gaussian:WIDTH, motion:LENGTH,ANGLE (pixels, degrees), a picture of the kernel, or blind: nobody knows it
        kernel_size: with --blur blind, an odd number of pixels that the kernel is no larger than (default: 31)
        upscale: enlarge by 2, 3 or 4
        jpeg: auto, off, or the quality of a JPEG file that the picture was (default: as a JPEG file itself says)
        restorer: image-space (default) or direct (faster, for noise alone)
        weights: shipped weights, a checkpoint or the folder of a training, instead of --restorer
        symmetries: average over 1, 2, 4 or 8 turns and mirror images: better and slower
        report: also write a page about the restoration of a single picture to this .html file
        find_scratches: look for dust and scratches, write what was found to this .png file and mend it
        confidence: also write the error to be expected of each pixel to this .png file
        fast: looser solves: about half of the time, a little less sharp
        precision: auto (default), float32, or bfloat16, which some processors multiply faster
        tile: side of the windows of large pictures, a multiple of 8 (default: 384)
        max_steps: steps of a solve at most (default: as the weights were made for)
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        threads: CPU threads (default: torch's choice)
        overwrite: replace results that exist; the pictures themselves never
    """

    pictures: tuple[str, ...]
    output: str | None = None  # not a path: a slash at the end means a folder
    sigma: float | None = None
    noise: str = "white"
    range: str | None = None
    mask: Path | None = None
    missing: str | None = None
    blur: str | None = None
    kernel_size: int | None = None
    upscale: int | None = None
    jpeg: str | None = None
    restorer: str | None = None
    weights: str | None = None
    symmetries: int = 1
    report: Path | None = None
    find_scratches: Path | None = None
    confidence: Path | None = None
    fast: bool = False
    precision: str = "auto"
    tile: int | None = None
    max_steps: int | None = None
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.output is not None:
            named("--output", self.output)
        if self.sigma is not None:
            check_number("--sigma", self.sigma, 0.0, MAX_SIGMA)
        if self.weights is not None and self.restorer is not None:
            fail("--weights", "either --weights or --restorer", "both", error=InputError)
        if self.restorer is not None:
            check_choice("--restorer", self.restorer, FAMILIES)
        if check_choice("--noise", self.noise, NOISES) != "white" and self.sigma is not None:
            words = f"no level where the noise has many (--noise {self.noise})"
            fail("--sigma", words, f"{self.sigma:g}", error=InputError)
        if self.kernel_size is not None and self.blur != "blind":
            came = "no blur" if self.blur is None else f"--blur {self.blur}"
            fail("--kernel-size", "a blur that is to be found (--blur blind)", came, error=InputError)
        check_threads(self.threads)
        if self.max_steps is not None:
            check_integer("--max-steps", self.max_steps, 2)

        # Pages and maps go where their names say what they are.
        for name, path in self.extras.items():
            if path.suffix.lower() != SUFFIX_OF[name]:
                fail(f"--{name}", f"a name that ends in {SUFFIX_OF[name]}", repr(str(path)), error=InputError)

    @property
    def span(self) -> tuple[float, float] | None:
        """What ``--range`` says."""
        if self.range is None:
            return None
        try:
            low, high = (float(number) for number in self.range.split(","))
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            fail("--range", "the numbers of black and white, LOW,HIGH", repr(self.range), error=InputError)
        return low, high

    @property
    def extras(self) -> dict[str, Path]:
        """What else is written of a single picture."""
        found = {"report": self.report, "confidence": self.confidence, "find-scratches": self.find_scratches}
        return {name: path for name, path in found.items() if path is not None}
