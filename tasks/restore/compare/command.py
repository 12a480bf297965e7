"""Restorers beside baselines on a set of pictures, as the command line asks for them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jiio.outputs.tables import write

if TYPE_CHECKING:
    from .benchmark import Benchmark

NOISE = {"name": "GaussianNoise", "options": {"sigma": 25 / 255}}  # what every denoising paper has in its table


def on_pictures(values: dict[str, Any], json_path: str | None) -> dict[str, Any]:
    """Restorers and baselines on a set of pictures."""
    from jiio.checks import check_integer, fail
    from jiio.outputs.digest import of_model
    from jiio.outputs.tables import finite, table
    from jiio.tasks.frame.choices import Choice
    from jiio.tasks.frame.files import InputError
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.frame.machine import check_device, cpu_threads, versions
    from jiio.tasks.images.sets import load_set, tuning_pictures

    from ..load import load_restorer
    from ..symmetries import SymmetricRestorer, check_symmetries
    from .baselines import BASELINES
    from .benchmark import DEFINITIONS, Benchmark, benchmark

    if "features" in values:
        fail("--features", "--on without it", "both", "It is for the samples of generators.", InputError)
    if "pictures" in values:
        fail("--pictures", "--on without it", "both", "It is for the pictures that a task makes.", InputError)
    if "data" in values:
        fail("--data", "--on without it", "both", "The pictures of --on keep their own size.", InputError)
    on, root = values["on"], None if values.get("data_root") is None else Path(values["data_root"])
    seed = check_integer("--seed", values.get("seed", 0), 0)
    limit = None if values.get("limit") is None else check_integer("--limit", values["limit"], 1)
    threads = None if values.get("threads") is None else check_integer("--threads", values["threads"], 1)
    device = str(check_device(values.get("device", "cpu")))
    corruption = build(Choice, merge(NOISE, values.get("corruption", {})), "corruption.")
    family, settings = corruption.make("corruption", "corruption"), solve_settings(values.get("joint", {}))
    restorers = {label: load_restorer("CHECKPOINT", word) for label, word in labels(values["checkpoint"]).items()}
    count = check_symmetries("--symmetries", values.get("symmetries", 1))
    if count > 1:
        restorers = {f"{name}, {count} symmetries": SymmetricRestorer(r, count) for name, r in restorers.items()}
    channels = {restorer.channels for restorer in restorers.values()}
    if len(channels) > 1:
        fail("CHECKPOINT", "weights for grey pictures or for colours", "both", error=InputError)
    (channels,) = channels
    pictures = load_set("--on", on, channels=channels, limit=limit, data_root=root)
    baselines = () if values.get("no_baselines") else BASELINES
    tuning = tuning_pictures(on, channels=channels, data_root=root) if baselines else []

    head = {
        "on": on,
        "pictures": len(pictures),
        "corruption": dataclasses.asdict(corruption),
        "seed": seed,
        "joint": values.get("joint", {}),
        "symmetries": count,
        "weights": {label: of_model(restorer) for label, restorer in restorers.items()},
    }
    done = Benchmark()
    if values.get("resume"):
        done = earlier(json_path, head)

    def figures(benchmark: Benchmark) -> dict[str, Any]:
        body = {"mean": finite(benchmark.means()), "rows": finite(benchmark.rows), "tuned": benchmark.tuned}
        return {**head, **body, "definitions": DEFINITIONS, "versions": versions()}

    with cpu_threads(threads):
        result = benchmark(
            restorers,
            pictures,
            corruption=family,
            baselines=baselines,
            tuning=tuning,
            seed=seed,
            device=device,
            settings=settings,
            done=done,
            report=lambda line: print(line, file=sys.stderr, flush=True),
            after=lambda so_far: None if json_path is None else write(Path(json_path), figures(so_far)),
        )
    if values.get("per_image"):
        print(table(result.rows), file=sys.stderr)
    print(table(result.means()), file=sys.stderr)
    return figures(result)


def labels(words: Sequence[str]) -> dict[str, str]:
    """A name for each checkpoint in the table: that of its file or folder, or the whole word where two are the same."""
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError

    stems = [Path(word).stem for word in words]
    named = {stem if stems.count(stem) == 1 else word: word for stem, word in zip(stems, words, strict=True)}
    if len(named) < len(words):
        fail("CHECKPOINT", "different checkpoints", "the same one twice", error=InputError)
    return named


def solve_settings(joint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`jiio.solve` that ``--joint.*`` names; all others are the restorer's choice."""
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.solving.settings import JointConfig

    config = build(JointConfig, merge(dataclasses.asdict(JointConfig()), joint), "joint.")
    named = {"tolerance" if key in ("atol", "rtol") else key for key in joint}
    return {key: value for key, value in config.arguments().items() if key in named}


def earlier(json_path: str | None, head: Mapping[str, Any]) -> Benchmark:
    """The figures of an interrupted run under the same settings; none where the file is not there yet.

    Errors: InputError where the file is of other settings or cannot be read.
    """
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError, read_bytes

    from .benchmark import Benchmark

    if json_path is None:
        fail("--resume", "--json with the file to go on with", "none", error=InputError)
    path = Path(json_path)
    if not path.exists():
        return Benchmark()
    try:
        found = json.loads(read_bytes("--json", path, "the figures of jiio evaluate", 64 << 20))
        rows = [{key: float("nan") if v is None else v for key, v in row.items()} for row in found["rows"]]
        result = Benchmark(rows, dict(found["tuned"]))
        if not all({"method", "picture", "PSNR", "SSIM"} <= row.keys() for row in rows):
            raise KeyError("method, picture, PSNR and SSIM")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        came = f"{path}, which holds something else"
        raise InputError(f"--json: expected the figures of jiio evaluate --on to go on with, got {came}.") from error
    for key, value in json.loads(json.dumps(head)).items():
        if key != "pictures" and found.get(key) != value:
            came = f"{path} with {found.get(key)!r}"
            fail("--resume", f"figures of the same run ({key} {value!r})", came, "Name another file.", InputError)
    return result
