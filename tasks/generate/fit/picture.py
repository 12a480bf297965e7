"""What ``jiio fit`` does: codes for a picture that nobody prepared, and an honest account of how well they fit.

A generator has one size. ``whole`` shows it the middle square of the picture at that size; ``tiles`` shows it every
part of the picture, each a fit of its own, with overlaps that are blended. A grey generator fits the channels of a
colour picture one by one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError, check_output_folder
from jiio.tasks.frame.machine import check_device, cpu_threads, versions
from jiio.tasks.frame.outputs import Outputs, of_checkpoint, same, write_together
from jiio.tasks.frame.terminal import plain, say
from jiio.tasks.images.batches import resized
from jiio.tasks.images.pictures import Picture, read_picture

from ..generator import LatentGenerator
from ..task import GenerateConfig, load_generator
from .fit import Fit, fit_images, surprise
from .fitted import Fitted
from .options import FitOptions
from .page import FILES, pictures_of

CHUNK = 512  # tiles fitted at a time
MOST = 4_000_000  # pixels: a fit of tiles holds a few copies of the picture in memory
OVERLAP = 4  # pixels by which neighbouring tiles overlap, at most a quarter of their side


def fit_picture(options: FitOptions, argv: Sequence[str]) -> None:
    """Fit what the command line says, and write the results.

    Errors: JiioError, with nothing written.
    """
    device = check_device(options.device)
    check_place(options)
    picture = read_picture("picture", options.picture)
    model, config = generator_of(options.checkpoint)
    how = options.how or ("tiles" if config.data.family == "patches" else "whole")

    # The figures and the pictures of the page, some of which need a further solve.
    command = plain(shlex.join(["jiio", *argv]))
    settings = {"restarts": options.restarts, "seed": options.seed, "max_steps": options.max_steps}
    with cpu_threads(options.threads):
        fitted = fit_of(model.to(device), config, picture, how, **settings)
        told = account(model, fitted, how, options.restarts)
        told |= {"picture": plain(str(options.picture)), "kind": picture.kind, "checkpoint": options.checkpoint}
        files = pictures_of(model, fitted, told, command=command)

    figures = {**told, "command": command, "versions": versions()}
    files["fit.json"] = json.dumps(figures, indent=2).encode() + b"\n"
    write_together("--output", options.folder, files)
    say(line(options.picture, picture, fitted, told, options.folder), sys.stdout)


def generator_of(word: str) -> tuple[LatentGenerator, GenerateConfig]:
    """The generator that a checkpoint holds."""
    from jiio.tasks.frame.shipped import shipped

    checkpoint = load(shipped("--checkpoint", word, "weights", ".safetensors"))
    model = load_generator(checkpoint)
    assert isinstance(checkpoint.config, GenerateConfig)
    return model, checkpoint.config


def check_place(options: FitOptions) -> None:
    """A folder that can be written to, without results unless they may be replaced, and none of them given."""
    from jiio.tasks.frame.shipped import shipped

    folder = options.folder
    check_output_folder("--output", folder)
    if (folder / "fit.json").exists() and not options.overwrite:
        came = f"{folder}, which holds a fit"
        fail("--output", "a folder without a fit", came, "Pass --overwrite to replace it.", InputError)
    if any(same(folder / name, options.picture) for name in (*FILES, options.picture.name)):
        fail("--output", "another folder than the picture's own", str(folder), error=InputError)

    weights = of_checkpoint(shipped("--checkpoint", options.checkpoint, "weights", ".safetensors"))
    Outputs((options.picture, *weights), options.overwrite).folder("--output", folder, FILES)


def fit_of(
    model: LatentGenerator,
    config: GenerateConfig,
    picture: Picture,
    how: str,
    *,
    restarts: int,
    seed: int,
    **settings: Any,
) -> Fitted:
    """Fit a picture; settings as in :func:`jiio.solve`."""
    channels = config.data.channels
    pixels, places = cut(picture, config, how)
    side = config.data.size
    tiles = torch.cat([pixels[:, :, r : r + side, c : c + side] for r, c in places])  # (T, C, side, side)
    batch = tiles.flatten(0, 1)[:, None] if channels == 1 else tiles  # each channel an image of its own

    # Each tile is a problem of its own; a chunk of them shares its steps.
    device = model.mean.device
    fits = [fit_images(model, part.to(device), restarts=restarts, seed=seed, **settings) for part in batch.split(CHUNK)]
    fit = joined(fits)
    shown = fit.image.cpu().clamp(0, 1)
    shown = shown[:, 0].unflatten(0, tiles.shape[:2]) if channels == 1 else shown  # (T, C, side, side)
    result = shown[0] if how == "whole" else blended(shown, places, pixels.shape[2:])
    scores = torch.cat([surprise(model, f) for f in fits]).cpu()
    return Fitted(pixels[0], result, fit, places, scores, side)


def cut(picture: Picture, config: GenerateConfig, how: str) -> tuple[Tensor, list[tuple[int, int]]]:
    """The pixels (1, C, H, W) at the size at which they are fitted, and the corners of the tiles."""
    side, channels = config.data.size, config.data.channels
    pixels = torch.from_numpy(picture.pixels)[None]
    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1).contiguous()
    if how == "whole":
        return resized(middle(pixels), side, pixels.shape[1]), [(0, 0)]

    # Memory grows with the number of tiles.
    if pixels.shape[2] * pixels.shape[3] > MOST:
        came = f"{picture.path} with {pixels.shape[3]} x {pixels.shape[2]}"
        remedy = "Shrink it first, or pass --how whole."
        fail("picture", f"at most {MOST:,} pixels to fit tile by tile", came, remedy, InputError)
    pixels = at_least(pixels, side)
    return pixels, grid_of(pixels.shape[2], pixels.shape[3], side)


def middle(pixels: Tensor) -> Tensor:
    """The largest square in the middle."""
    side = min(pixels.shape[2:])
    top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
    return pixels[:, :, top : top + side, left : left + side]


def at_least(pixels: Tensor, side: int) -> Tensor:
    """Enlarged where it is smaller than a tile."""
    height, width = pixels.shape[2:]
    scale = max(1.0, side / height, side / width)
    if scale == 1.0:
        return pixels
    size = [math.ceil(height * scale), math.ceil(width * scale)]
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def grid_of(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Corners of tiles that cover everything, neighbours overlapping by at least ``OVERLAP`` pixels."""
    step = side - min(OVERLAP, side // 4)

    def starts(length: int) -> list[int]:
        count = math.ceil((length - side) / step) + 1
        return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]

    return [(r, c) for r in starts(height) for c in starts(width)]


def blended(tiles: Tensor, places: list[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """(C, H, W) from tiles (T, C, side, side); where they overlap, the one whose middle is nearer counts more."""
    side = tiles.shape[2]
    ramp = torch.minimum(torch.arange(side) + 0.5, side - torch.arange(side) - 0.5)
    weight = torch.outer(ramp, ramp)
    total = torch.zeros(tiles.shape[1], *size)
    count = torch.zeros(*size)
    for tile, (r, c) in zip(tiles, places, strict=True):
        total[:, r : r + side, c : c + side] += weight * tile
        count[r : r + side, c : c + side] += weight
    return total / count


def joined(fits: list[Fit]) -> Fit:
    """The fits of several batches as one; the solution is the first one's."""
    names = ("image", "x", "objective", "error", "prior", "residual", "converged", "start")
    parts = {name: torch.cat([getattr(f, name) for f in fits]) for name in names}
    starts = torch.cat([f.starts for f in fits], 1)
    evaluations, vjps = sum(f.evaluations for f in fits), sum(f.vjps for f in fits)
    return dataclasses.replace(fits[0], **parts, starts=starts, evaluations=evaluations, vjps=vjps)


def account(model: LatentGenerator, fitted: Fitted, how: str, restarts: int) -> dict[str, Any]:
    """Everything measured, for the JSON file and the page."""
    fit = fitted.fit
    return {
        "how": how,
        "size": [fitted.image.shape[2], fitted.image.shape[1]],
        "tiles": len(fitted.places),
        "PSNR": fitted.quality,
        "objective": float(fit.objective.mean()),
        "error": float(fit.error.mean()),
        "prior": float(fit.prior.mean()),
        "converged": float(fit.converged.float().mean()),
        "largest residual": float(fit.residual.max()),
        **of_starts(fit, restarts),
        "standard deviations above training images": float(model.objective_score(fit.objective).mean()),
        "surprise": float(fitted.surprise.mean()),
        "evaluations": fit.evaluations,
        "VJPs": fit.vjps,
    }


def of_starts(fit: Fit, restarts: int) -> dict[str, Any]:
    """Whether it mattered where a fit began."""
    best = fit.objective
    return {
        "starts": restarts + 1,
        "fits improved by a further start": float((fit.starts[0] > 1.01 * best).float().mean()),
        "spread between starts": float(((fit.starts - best) / best.abs().clamp_min(1e-12)).median(1).values.max()),
    }


def line(path: Path, picture: Picture, fitted: Fitted, told: dict[str, Any], folder: Path) -> str:
    """The account in a line."""
    height, width = picture.pixels.shape[1:]
    count = len(fitted.fit.objective)
    good = int(fitted.fit.converged.sum())
    return (
        f"{path}: {width} x {height}, {picture.kind}; {told['how']}, {count} fits of {fitted.side} x {fitted.side}; "
        f"{fitted.quality:.2f} dB; {good} of {count} converged; objective "
        f"{told['standard deviations above training images']:+.1f} standard deviations from that of training images, "
        f"surprise {told['surprise']:.1f} nats; {told['evaluations']} evaluations, {told['VJPs']} VJPs -> {folder}"
    )
