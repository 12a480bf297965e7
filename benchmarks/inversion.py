"""Inversion of feed-forward generators: layer by layer against Adam on the code, with known codes.

Random generators with ReLU between Gaussian layers, of several widths, clean and with noise; and a generator trained as
an autoencoder's decoder for a few seconds, on codes like those of its training images, and on test images, which it
cannot make exactly. Reported: the share of codes found (relative error below 1 %, or ten times the noise), the share of
images reported as successes, how many of these had another code, the residual, and passes through the generator and
back. Adam has its cost at the best of three rates (in its favour).

    python benchmarks/inversion.py --output inversion.json
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from typing import Any

import harness
import torch
from torch import Tensor, nn

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
):
    """A row for each method: its best candidate, by codes found, then by residual."""
    for name, candidates in makers.items():
        rows = []
        for how in candidates:
            begin = time.process_time()
            found = how.find(model, images)
            row: dict[str, Any] = {"method": name, "reported": float(found.succeeded.double().mean())}
            row["residual"] = float(found.residual.median())
            if x is not None:
                good = (found.x - x).norm(dim=1) <= right * x.norm(dim=1)
                row["found"] = float(good.double().mean())
                row["reported, another code"] = int((found.succeeded & ~good).sum())
            else:
                row["PSNR"] = float(psnr(found.image.clamp(0, 1), images.clamp(0, 1)).mean())
            row["passes"] = found.evaluations + found.gradients
            row["seconds"] = time.process_time() - begin
            rows.append(row)
        yield max(rows, key=lambda row: (row.get("found", 0.0), -row["residual"]))


def on_random(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every generator and noise level of one seed."""
    rows = []
    for widths in WIDTHS[:4:3] if options.fast else WIDTHS:
        model = random_generator(widths, seed)
        draw = generator(seed, "codes", *widths)
        x = torch.randn(options.images, widths[0], generator=draw, dtype=torch.float64)
        with torch.no_grad():
            clean = model(x)
        e = torch.randn(clean.shape, generator=draw, dtype=torch.float64)
        e *= clean.norm(dim=1, keepdim=True) / e.norm(dim=1, keepdim=True)
        for noise in NOISE:
            makers, right = methods(2 * noise or 1e-3, options.steps), 10 * noise or RIGHT
            for row in measured(makers, model, clean + noise * e, x, right):
                rows.append({"generator": "-".join(map(str, widths)), "noise": noise, "seed": seed} | row)
                harness.say(str(rows[-1]))
    return rows


def trained_generator(images: Tensor, seed: int, seconds: float) -> tuple[nn.Sequential, Tensor]:
    """The decoder of an autoencoder after so many seconds, and the codes of its training images."""
    torch.manual_seed(derive(seed, "model"))
    pixels = images[0].numel()
    sizes = (*TRAINED, pixels)
    up = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    decoder = nn.Sequential(*up[:-1], nn.Unflatten(1, tuple(images.shape[1:])))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, TRAINED[0]))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    begin, step = time.process_time(), 0
    while time.process_time() - begin < seconds:
        batch = images[torch.randint(len(images), (64,), generator=generator(seed, "batch", step))]
        code = encoder(batch)
        # Codes of about unit variance, so that a standard normal start means the same as for random generators.
        loss = (decoder(code) - batch).square().flatten(1).sum(1).mean() + 0.1 * (
            code.square().mean(0) - 1
        ).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
    harness.say(f"autoencoder {seed}: {step} steps, loss {loss.item():.4g}")
    with torch.no_grad():
        return decoder.eval().requires_grad_(False), encoder(images)


def on_trained(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Images that the generator can make, and test images."""
    found = load_images(
        DataConfig(family=options.set, size=24 if options.set == "faces" else 28), data_root=options.data_root
    )
    model, codes = trained_generator(found.train[:6000], seed, options.seconds)
    chosen = torch.randperm(len(codes), generator=generator(seed, "chosen"))[: options.images]
    x, rows = codes[chosen], []
    with torch.no_grad():
        cases = {"its own images": (model(x), x, 1e-3), "test images": (found.test[: options.images], None, 0.5)}
    for name, (images, known, within) in cases.items():
        for row in measured(methods(within, options.steps), model, images, known, RIGHT):
            rows.append({"images": name, "seed": seed} | row)
            harness.say(str(rows[-1]))
    return rows


def run(options: argparse.Namespace) -> harness.Row:
    seeds = range(1 if options.fast else options.seeds)
    result: harness.Row = {}
    for part, make in (("random", on_random), ("trained", on_trained)):
        settings = f"{options.images}-{options.steps}-{options.seconds:g}-{options.set}-{options.fast}"
        rows = [
            row
            for seed in seeds
            for row in harness.kept(
                options.cache, f"inversion-{part}-{seed}-{settings}", lambda s=seed, m=make: m(s, options)
            )
        ]
        heads = ("generator", "noise", "images", "method")
        groups: dict[tuple, list[dict]] = {}
        for row in rows:
            groups.setdefault(tuple(row[key] for key in heads if key in row), []).append(row)
        table = []
        for group in groups.values():
            line = {key: group[0][key] for key in heads if key in group[0]}
            keys = [key for key in group[0] if key not in (*heads, "seed")]
            table.append(line | {key: harness.spread([float(row[key]) for row in group]) for key in keys})
        harness.show(f"{part} generators: median (lowest to highest seed)", table)
        result[part] = rows
    return result


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--images", type=harness.positive, default=32, help="images of every case (default 32)")
    made.add_argument("--steps", type=harness.positive, default=500, help="steps of Adam (default 500)")
    made.add_argument("--seconds", type=float, default=10.0, help="processor seconds of the training (default 10)")
    made.add_argument("--set", choices=["faces", "mnist"], default="faces", help="images of the training")
    sys.exit(harness.main(made, run))
