"""Inversion of feed-forward generators: layer by layer against Adam on the code, with known codes.

    python -m benchmarks.generate.inversion --output inversion.json
    # about 20 minutes; --fast: 1

Random generators with ReLU between Gaussian layers, of several widths, clean and with noise; and a generator trained as
an autoencoder's decoder for a few seconds, on codes like those of its training images, and on test images, which it
cannot make exactly. Reported: the share of codes found (relative error below 1 %, or ten times the noise), the share of
images reported as successes, how many of these had another code, the residual, and passes through the generator and
back. Adam has its cost at the best of three rates (in its favour).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, say, show
from benchmarks.trainings import Course, Seconds, constant, descend
from jiio.outputs.seeds import derive, generator
from jiio.tasks.generate.inversion.base import AbstractInversion, AdamDescent
from jiio.tasks.generate.inversion.layerwise import LayerWise
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.metrics import psnr

WIDTHS = ((10, 40, 120), (10, 40, 120, 360), (10, 25, 60), (10, 20, 40), (20, 10, 60), (10, 100, 60))
NOISE = (0.0, 0.01)
RATES = (0.03, 0.1, 0.3)
RIGHT = 0.01  # relative error of a code that was found, without noise
TRAINED = (8, 64, 256)  # widths of the trained generator below its pixels
HEADS = ("generator", "noise", "images", "method")


def methods(within: float, steps: int) -> dict[str, list[AbstractInversion]]:
    """The candidates of each method; with the same starts for all images."""
    support = min(3 * within, 0.1)
    layers = LayerWise(support, within=within)
    return {
        "layer-wise": [layers],
        "layer-wise, lambda 0": [LayerWise(support, 0.0, within=within)],
        "Adam": [AdamDescent(rate, steps, within=within) for rate in RATES],
        "Adam, 5 starts": [AdamDescent(rate, steps, 5, within=within) for rate in RATES],
        "Adam after layer-wise": [AdamDescent(rate / 10, steps, start=layers, within=within) for rate in RATES],
    }


def random_generator(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """Gaussian weights that keep the variance, small biases, in double precision."""
    draw, parts = generator(seed, "weights", *widths), []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after, dtype=torch.float64)
        linear.weight.data = torch.randn(after, before, generator=draw, dtype=torch.float64) * math.sqrt(2 / before)
        linear.bias.data = 0.1 * torch.randn(after, generator=draw, dtype=torch.float64)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def measured(
    makers: dict[str, list[AbstractInversion]], model: nn.Module, images: Tensor, x: Tensor | None, right: float
) -> Iterator[Row]:
    """A row for each method: its best candidate, by codes found, then by residual.

    x: the codes (B, n), where they are known; right: relative error of one that was found.
    """
    for name, candidates in makers.items():
        rows: list[Row] = [{"method": name} | tried(how, model, images, x, right) for how in candidates]
        yield max(rows, key=lambda row: (row.get("found", 0.0), -row["residual"]))


def tried(how: AbstractInversion, model: nn.Module, images: Tensor, x: Tensor | None, right: float) -> Row:
    """One candidate."""
    begin = time.process_time()
    found = how.find(model, images)
    seconds = time.process_time() - begin
    row: Row = {"reported": float(found.succeeded.double().mean()), "residual": float(found.residual.median())}

    # An image can have a second code: reported as a success, and not the one that it was made from.
    if x is not None:
        good = (found.x - x).norm(dim=1) <= right * x.norm(dim=1)
        row["found"] = float(good.double().mean())
        row["reported, another code"] = int((found.succeeded & ~good).sum())
    else:
        row["PSNR"] = float(psnr(found.image.clamp(0, 1), images.clamp(0, 1)).mean())
    return row | {"passes": found.evaluations + found.gradients, "seconds": seconds}


def on_random(seed: int, options: argparse.Namespace) -> list[Row]:
    """Every generator and noise level of one seed."""
    rows = []
    for widths in WIDTHS[:4:3] if options.fast else WIDTHS:
        model = random_generator(widths, seed)
        draw = generator(seed, "codes", *widths)
        x = torch.randn(options.images, widths[0], generator=draw, dtype=torch.float64)
        with torch.no_grad():
            clean = model(x)

        # Noise as long as the image, to be scaled.
        e = torch.randn(clean.shape, generator=draw, dtype=torch.float64)
        e *= clean.norm(dim=1, keepdim=True) / e.norm(dim=1, keepdim=True)
        for noise in NOISE:
            makers, right = methods(2 * noise or 1e-3, options.steps), 10 * noise or RIGHT
            head = {"generator": "-".join(map(str, widths)), "noise": noise}
            rows += [head | row for row in measured(makers, model, clean + noise * e, x, right)]
        say(f"seed {seed}: generator {head['generator']}")
    return rows


def trained_generator(images: Tensor, seed: int, seconds: float) -> tuple[nn.Sequential, Tensor]:
    """The decoder of an autoencoder after so many seconds, and the codes of its training images (B, C, H, W)."""
    torch.manual_seed(derive(seed, "model"))
    pixels = images[0].numel()
    up = [part for a, b in itertools.pairwise((*TRAINED, pixels)) for part in (nn.Linear(a, b), nn.ReLU())]
    decoder = nn.Sequential(*up[:-1], nn.Unflatten(1, tuple(images.shape[1:])))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, TRAINED[0]))

    def loss(step: int) -> Tensor:
        batch = images[torch.randint(len(images), (64,), generator=generator(seed, "batch", step))]
        code = encoder(batch)
        # Codes of about unit variance, so that a standard normal start means the same as for random generators.
        spread = (code.square().mean(0) - 1).square().sum()
        return (decoder(code) - batch).square().flatten(1).sum(1).mean() + 0.1 * spread

    weights = [*encoder.parameters(), *decoder.parameters()]
    done = descend(weights, loss, Course(constant(2e-3), clip=math.inf), Seconds(seconds))
    say(f"autoencoder {seed}: {done.steps} steps, loss {done.loss:.4g}")
    with torch.no_grad():
        return decoder.eval().requires_grad_(False), encoder(images)


def on_trained(seed: int, options: argparse.Namespace) -> list[Row]:
    """Images that the generator can make, and test images."""
    config = DataConfig(family=options.set, size=24 if options.set == "faces" else 28)
    found = load_images(config, data_root=options.data_root)
    model, codes = trained_generator(found.train[:6000], seed, options.seconds)
    x = codes[torch.randperm(len(codes), generator=generator(seed, "chosen"))[: options.images]]
    with torch.no_grad():
        cases = {"its own images": (model(x), x, 1e-3), "test images": (found.test[: options.images], None, 0.5)}

    rows: list[Row] = []
    for name, (images, known, within) in cases.items():
        made = measured(methods(within, options.steps), model, images, known, RIGHT)
        rows += [{"images": name} | row for row in made]
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds on random generators, then on trained ones."""
    for part, make in (("random", on_random), ("trained", on_trained)):
        seeds = range(options.seeds)
        found = [row for seed in seeds for row in rows.each(f"{part}/{seed}", make, seed, options)]
        show(f"{part} generators: median (lowest to highest seed)", over_seeds(found, *HEADS))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "images": 8, "steps": 50, "seconds": 3.0})
    made.number("--images", 32, "images of every case")
    made.number("--steps", 500, "steps of Adam")
    made.seconds("--seconds", 10.0, "processor seconds of the training")
    made.add_argument("--set", choices=["faces", "mnist"], default="faces", help="images of the training")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
