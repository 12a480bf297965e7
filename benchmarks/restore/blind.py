"""How much better is a blurred picture of which nobody knows the kernel, and is it said where it is not?

    python -m benchmarks.restore.blind [--fast]    # needs denoising/Set12; about 20 minutes on a core; --fast: 2

The pictures of Set12 (the middle of each, ``--side`` pixels), with a straight motion (7 to 15 pixels, another angle for
each picture), a Gaussian blur (1.2 to 2.4 pixels), or a disc of radius 3 and a bent path, which are no shapes that are
looked for; noise of 1 or 2 %, turn by turn, and 8 bits. PSNR in dB inside a border of 8 pixels, at the best of all
moves by up to 4 whole pixels: damaged; by a wrong guess (a Gaussian of 2 pixels for a motion, a motion of 9 pixels at 0
degrees for the others); blind; and with the kernel known. The constants were chosen on the pictures of even number
with other kernels. `likeness` is the largest correlation of the kernel with the true one; `doubted` the share
of pictures of which the result was doubted, and `doubted, wrong guess` likewise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.pictures import Picture
from jiio.tasks.images.sources import find_data, image_files
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.damage import Blurred
from jiio.tasks.restore.photos.one import Restored, restore_photo
from jiio.tasks.restore.photos.unknown import Unknown

BORDER, MOVE = 8, 4  # pixels


def disc(radius: float) -> Tensor:
    """Out of focus."""
    side = 2 * int(radius + 1) + 1
    fine = (torch.arange(8 * side, dtype=torch.float64) + 0.5) / 8 - side / 2
    inside = (fine[:, None].square() + fine.square() <= radius**2).double()
    found = inside.view(side, 8, side, 8).sum((1, 3))
    return found / found.sum()


def bent(turn: float) -> Tensor:
    """A path that bends, as of a hand that shakes."""
    time = torch.linspace(-1, 1, 600, dtype=torch.float64)
    along, aside = 5 * time, 4 * time.square() - 1.6
    row = 8 + along * np.sin(turn) + aside * np.cos(turn)
    column = 8 + along * np.cos(turn) - aside * np.sin(turn)
    grid = torch.arange(17, dtype=torch.float64)
    drawn = [(1 - (place[:, None] - grid).abs()).clamp_min(0) for place in (row, column)]
    return drawn[0].T @ drawn[1] / len(time)


# Of the number of a picture: the kernel, and a wrong guess.
CASES: dict[str, tuple[Callable[[int], Tensor], Tensor]] = {
    "motion": (lambda i: motion_kernel(7 + 2 * (i % 5), 15 + 37 * i), gaussian_kernel(2.0)),
    "Gaussian": (lambda i: gaussian_kernel(1.2 + 0.3 * (i % 5)), motion_kernel(9, 0)),
    "disc": (lambda i: disc(3.0), motion_kernel(9, 0)),
    "bent": (lambda i: bent(0.5 * i), motion_kernel(9, 0)),
}


def score(found: np.ndarray, clean: np.ndarray) -> float:
    """PSNR where the two lie best on each other."""
    best = np.inf
    inner = slice(BORDER, -BORDER)
    for rows, columns in np.ndindex(2 * MOVE + 1, 2 * MOVE + 1):
        moved = np.roll(found.clip(0, 1), (rows - MOVE, columns - MOVE), (0, 1))
        best = min(best, float(np.square(moved[inner, inner] - clean[inner, inner]).mean()))
    return float(-10 * np.log10(best))


def likeness(one: Tensor, other: Tensor) -> float:
    """The largest correlation over all moves."""
    side = len(one) + len(other)
    parts = [torch.fft.rfft2(kernel, s=(side, side)) for kernel in (one, other)]
    return float(torch.fft.irfft2(parts[0] * parts[1].conj(), s=(side, side)).max() / (one.norm() * other.norm()))


def measure(case: str, path: Path, number: int, side: int) -> Row:
    """One picture. number: in its set, from which everything is drawn."""
    clean = read_image("--data-root", path, channels=1)[:, :, 0]
    top, left = ((n - min(n, side)) // 2 for n in clean.shape)
    clean = clean[top : top + side, left : left + side]
    kernel, guess = CASES[case][0](number), CASES[case][1]
    height, width = clean.shape
    operator = blur(kernel, (height, width), boundary="valid")
    y = operator.A(torch.from_numpy(clean)[None, None].double())[0, 0].numpy()
    y = y + (0.01, 0.02)[number // 2 % 2] * np.random.default_rng(number).standard_normal(y.shape)
    y = (np.rint(255 * y.clip(0, 1)) / 255).astype(np.float32)

    # What the measurement shows of the scene; a kernel reaches beyond it.
    top, left = ((n - 1) // 2 for n in kernel.shape)
    clean = clean[top : top + y.shape[0], left : left + y.shape[1]]
    restorer, picture = load_restorer("--weights", "prior-grey"), Picture(Path("a.png"), y[None])

    def by(damage: Blurred | Unknown) -> tuple[float, Restored]:
        done = restore_photo(picture, restorer, damage=damage)
        return score(done.picture.pixels[0], clean), done

    # The doubts of a guess are of no use where the right answer is doubted as often.
    blind, done = by(Unknown())
    wrong, doubted = by(Blurred("guess", guess))
    found = done.blind
    assert found is not None
    return {
        "damaged": score(y, clean),
        "wrong guess": wrong,
        "blind": blind,
        "known": by(Blurred("kernel", kernel))[0],
        "likeness": likeness(found.kernel, kernel),
        "free": float(found.free),
        "doubted": float(bool(done.doubts)),
        "doubted, wrong guess": float(bool(doubted.doubts)),
        "found": found.words,
        "doubts": "; ".join(done.doubts),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The table."""
    folder = find_data(options.data_root, "denoising/Set12", "the pictures of Set12", argument="--data-root")
    paths = image_files("--data-root", folder)[: options.pictures]
    # Picture by picture, so that a run that was stopped has some of each kernel.
    made: dict[str, list[Row]] = {case: [] for case in options.cases}
    for i, path in enumerate(paths):
        for case, each in made.items():
            each.append(rows.each(f"{case}, {path.stem}", measure, case, path, i, options.side))

    found = []
    for case, each in made.items():
        for words, part in (("tuned on", each[1::2]), ("kept out", each[::2])):
            numbers = [name for name, value in each[0].items() if isinstance(value, float)]
            means = {name: float(np.mean([row[name] for row in part])) for name in numbers if part}
            found.append({"": f"{case}, {len(part)} {words}"} | means)
    show(f"blind deblurring of {len(paths)} pictures of Set12, PSNR in dB", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"pictures": 2, "side": 144})
    made.number("--pictures", 12, "of the set")
    made.number("--side", 256, "pixels of their middle")
    made.chosen("--cases", list(CASES), list(CASES), "kernels")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
