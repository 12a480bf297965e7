"""Restorers and baselines on pictures of any size, picture by picture, with everything that a table needs.

All methods see the same measurement. Map and noise of a picture are a pure function of the seed and the picture's name,
so that figures depend neither on the other pictures nor on their order, and a benchmark can be continued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jiio.checks import JiioError, fail
from jiio.tasks.images.metrics import psnr, ssim
from jiio.tasks.maps.corruption import AbstractCorruption

from ..base import AbstractRestorer
from .baselines import BASELINES, Baseline, Settings, Trial, serving, tune

Row = dict[str, Any]
DEFINITIONS = {
    "PSNR": "-10 log10 of the mean squared error over channels and pixels, in dB, data range 1",
    "SSIM": "Wang et al. 2004: Gaussian window of sigma 1.5, population covariance, data range 1, mean over channels",
    "images": "restored images are clipped to [0, 1], not rounded; pixels that are known exactly are put back",
    "means": "over the pictures, every picture having the same weight",
    "seconds": "wall time of one picture",
    "evaluations, VJPs": "calls of the network for one picture",
    "converged": "share of the pictures whose solve met its tolerance",
}
SSIM_WINDOW = 11  # pixels; a smaller picture has no SSIM


@dataclass
class Benchmark:
    """Figures, growing picture by picture.

    rows: one for each method and picture, with ``method``, ``picture`` and the figures. tuned: the settings of each
    baseline.
    """

    rows: list[Row] = field(default_factory=list)
    tuned: dict[str, Settings] = field(default_factory=dict)

    def has(self, method: str, picture: str) -> bool:
        return any(row["method"] == method and row["picture"] == picture for row in self.rows)

    def means(self) -> list[Row]:
        """One row for each method, in the order of their first appearance."""
        table = []
        for method in dict.fromkeys(row["method"] for row in self.rows):
            rows = [row for row in self.rows if row["method"] == method]
            keys = [key for key in rows[0] if key not in ("method", "picture")]
            mean = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
            table.append({"method": method, "pictures": len(rows), **mean})
        return table


def benchmark(
    restorers: Mapping[str, AbstractRestorer],
    pictures: Mapping[str, Tensor],
    *,
    corruption: AbstractCorruption,
    baselines: Sequence[Baseline] = BASELINES,
    tuning: Sequence[Tensor] = (),
    seed: int = 0,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    done: Benchmark | None = None,
    report: Callable[[str], None] = lambda line: None,
    after: Callable[[Benchmark], None] = lambda benchmark: None,
) -> Benchmark:
    """Measure restorers and the baselines that serve the corruption.

    Args:
        restorers: by the name that they have in the table.
        pictures: by name, (1, C, H, W) in [0, 1].
        corruption: how the pictures are damaged.
        baselines: those that do not serve the corruption are passed over.
        tuning: pictures on which the baselines are tuned, as :func:`.baselines.tune` does it; not the same ones.
        seed: of the maps and the noise.
        device: of the restorers; baselines run on the CPU.
        settings: of the solves, as in :func:`jiio.solve`.
        done: figures of an earlier run with the same arguments; what is in it is not measured again.
        report: gets a line for every picture.
        after: is called with the figures so far after every picture, to save them.

    Errors: JiioError where a restorer or a baseline cannot do it; the sentence names method and picture.
    """
    if not pictures:
        fail("pictures", "at least one picture", "none")
    benchmark = done or Benchmark()
    methods: dict[str, Callable[[Trial], Row]] = {"start": of_start}

    # Which baselines serve does not depend on the picture; their settings are found once, on other pictures.
    some = Trial.draw(next(iter(pictures.values())), corruption, seed, "which baselines")
    for baseline in serving(some.operator, baselines):
        if baseline.name not in benchmark.tuned:
            benchmark.tuned[baseline.name] = tuned(baseline, tuning, corruption, seed, report)
        methods[baseline.name] = of_baseline(baseline, benchmark.tuned[baseline.name])
    for label, restorer in restorers.items():
        methods[label] = of_restorer(restorer.to(device), device, {"on_failure": "ignore"} | dict(settings or {}))

    for number, (name, clean) in enumerate(pictures.items(), 1):
        missing = {label: method for label, method in methods.items() if not benchmark.has(label, name)}
        if not missing:
            continue
        rows = measured(missing, name, Trial.draw(clean, corruption, seed, name))
        benchmark.rows += rows
        shown = [f"{row['method']} {row['PSNR']:.2f} dB" for row in rows if row["method"] in restorers]
        report(f"{number} of {len(pictures)}: {', '.join([name, *shown])}")
        after(benchmark)
    return benchmark


def measured(methods: Mapping[str, Callable[[Trial], Row]], name: str, case: Trial) -> list[Row]:
    """The rows of one picture. Errors: JiioError; the sentence names method and picture."""
    rows = []
    for label, method in methods.items():
        try:
            rows.append({"method": label, "picture": name, **method(case)})
        except JiioError as error:
            raise type(error)(f"{label}, {name}: {error}") from error
    return rows


def tuned(
    baseline: Baseline,
    pictures: Sequence[Tensor],
    corruption: AbstractCorruption,
    seed: int,
    report: Callable[[str], None],
) -> Settings:
    """The settings of a baseline, and a line about them."""
    if len(baseline.choices()) > 1 and not pictures:
        fail("tuning", f"pictures to tune {baseline.name} on", "none")
    settings = tune(baseline, pictures, corruption, seed=seed)
    if settings:
        words = ", ".join(f"{key} {value}" for key, value in settings.items())
        report(f"tuned on {len(pictures)} pictures: {baseline.name}, {words}")
    return settings


def figures(case: Trial, restore: Callable[[Tensor], Tensor]) -> Row:
    """PSNR, SSIM and seconds of one method on one picture."""
    begin = time.perf_counter()
    with torch.no_grad():
        image = restore(case.y).cpu()
    seconds = time.perf_counter() - begin
    image = case.finished(image)
    similar = float(ssim(image, case.clean)) if min(image.shape[2:]) >= SSIM_WINDOW else float("nan")
    return {"PSNR": float(psnr(image, case.clean)), "SSIM": similar, "seconds": seconds}


def of_start(case: Trial) -> Row:
    """The image that a restoration starts from: the measurement, its holes filled, enlarged where it is coarser."""
    return figures(case, case.operator.start)


def of_baseline(baseline: Baseline, settings: Settings) -> Callable[[Trial], Row]:
    """A baseline under its tuned settings."""
    return lambda case: figures(case, lambda y: baseline(y, case.operator, settings))


def of_restorer(restorer: AbstractRestorer, device: str, settings: Mapping[str, Any]) -> Callable[[Trial], Row]:
    """A restorer, with the account of its solve."""

    def measure(case: Trial) -> Row:
        accounts = []

        def restore(y: Tensor) -> Tensor:
            accounts.append(restorer.restore(y.to(device), case.operator, **settings))
            return accounts[0].image

        row = figures(case, restore)
        calls = {"evaluations": float(accounts[0].evaluations), "VJPs": float(accounts[0].vjps)}
        return {**row, **calls, "converged": float(accounts[0].converged.float().mean())}

    return measure
