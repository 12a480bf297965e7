"""Single pictures as people bring them, restored without a level told, beside the best of the usual tools.

    python -m benchmarks.restore.snapshots [--fast]    # needs denoising/CBSD68; about 15 minutes on a core; --fast: 4

Seven are the photographs of scikit-image that a first trial of this library was made with; the prior for colours has
seen four of them in training (astronaut, chelsea, coffee, rocket). Ten more are of scikit-image and CBSD68, which no
prior has seen: constants of the restoration were chosen on the first five of these, and the others kept out. Every
picture has one damage; nobody tells a level of noise, but what a person knows is said: a kernel, a mask, a factor, and
in ``told`` that there was little light (``--noise``), which ``ours`` does without.

The usual tools come twice: as somebody calls them who knows no level either (``tool``), and at the best of some
strengths, chosen by the clean picture (``tuned``), which nobody has in practice. Tools that deblur are told the kernel
always. PSNR in dB inside a border of 4 pixels; of a faded scan after the best change of contrast. Processor seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Parser, main
from benchmarks.restore.photos import score
from benchmarks.restore.snapshot_damages import SNAPSHOTS, Snapshot
from benchmarks.restore.usual_tools import restored_by, tuned_by
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, show_line
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.damage import Noise
from jiio.tasks.restore.photos.one import restore_photo


def in_contrast(found: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """A picture with the slope and the offset that bring it nearest to the clean one."""
    design = np.stack([found.ravel(), np.ones(found.size)], 1)
    (slope, offset), *_ = np.linalg.lstsq(design, clean.ravel(), rcond=None)
    return slope * found + offset


def measure(snapshot: Snapshot, data_root: Path | None) -> Row:
    """One picture: damaged, by us, and by every tool."""
    clean = snapshot.clean(data_root)
    damaged = snapshot.damage(clean, np.random.default_rng(snapshot.seed))
    restorer = load_restorer("--weights", "prior-grey" if len(clean) == 1 else "prior-colour")

    # As somebody calls it who knows nothing; and, where the noise has a name, as one who says it.
    begin = time.process_time()
    done = restore_photo(damaged.picture, restorer, damage=damaged.damage)
    seconds = time.process_time() - begin
    told = done
    if damaged.noise != "white":
        told = restore_photo(damaged.picture, restorer, damage=Noise(), noise=damaged.noise)

    def of(pixels: np.ndarray) -> float:
        return score(in_contrast(pixels, clean) if snapshot.faded else pixels, clean)

    # The tools know the kernel, the holes and the factor; no level is told but in "tuned".
    before, kernel = damaged.picture.pixels, damaged.kernel
    tools = restored_by(damaged.tools, before, damaged.keep, kernel, factor=damaged.factor)
    tuned = tuned_by(damaged.tools, before, damaged.keep, kernel)
    return {
        "damaged": of(before) if before.shape == clean.shape else None,
        "ours": of(done.picture.pixels),
        "told": of(told.picture.pixels),
        "tools": {name: of(pixels) for name, pixels in tools.items()},
        "tuned": {name: of(pixels) for name, pixels in (tools | tuned).items()},
        "seconds": seconds,
        "noise": told.noise_words,
        "doubts": "; ".join(done.doubts),
    }


def best(figures: dict[str, float]) -> tuple[float, str]:
    """The highest, and whose it is."""
    name = max(figures, key=lambda tool: figures[tool])
    return figures[name], name


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The table."""
    chosen = [snapshot for snapshot in SNAPSHOTS if snapshot.name in options.pictures]
    found = []
    for snapshot in chosen:
        row = rows.each(snapshot.name, measure, snapshot, options.data_root)
        (tool, by), (tuned, with_it) = best(row["tools"]), best(row["tuned"])
        numbers = {"damaged": row["damaged"], "ours": row["ours"], "told": row["told"], "tool": tool, "by": by}
        more = {"tuned": tuned, "with": with_it, "s": row["seconds"]}
        found.append({"": snapshot.name, "set": snapshot.part} | numbers | more)
    show("PSNR in dB", found)
    for column in ("tool", "tuned"):
        for ours in ("ours", "told"):
            won = sum(row[ours] >= row[column] for row in found)
            show_line(f"{ours} at least the best {column}", f"{won} of {len(found)}")


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    torch.manual_seed(0)
    names = [snapshot.name for snapshot in SNAPSHOTS]
    made = Parser(__doc__, __file__, seeds=1, fast={"pictures": [s.name for s in SNAPSHOTS if s.part != "first"]})
    made.chosen("--pictures", names, names, "damaged pictures")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
