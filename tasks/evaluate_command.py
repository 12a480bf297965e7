"""``jiio evaluate``: a trained model on its own test images, or restorers beside baselines on a set of pictures."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

if TYPE_CHECKING:
    from tasks.benchmark import Benchmark

NOISE = {"name": "GaussianNoise", "options": {"sigma": 25 / 255}}  # what every denoising paper has in its table
ONLY_WITH_ON = ("per_image", "limit", "no_baselines", "resume", "threads", "symmetries")


def declare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments."""
    from tasks.config import Choice, DataConfig, JointConfig

    add: Callable[..., Any] = parser.add_argument
    add("checkpoint", type=str, nargs="+", help="a checkpoint, the folder of a training, or shipped weights")
    add("--on", type=str, help="restorers: set12, bsd68, cbsd68, faces or folder:PATH, pictures of their own size")
    add("--per-image", action="store_true", help="with --on: a table with every picture as well")
    add("--limit", type=int, help="with --on: only the first so many pictures")
    add("--no-baselines", action="store_true", help="with --on: without the restorers of scikit-image")
    add("--resume", action="store_true", help="with --on: go on with the figures in the file of --json")
    add("--symmetries", type=int, help="with --on: average each restorer over 1 (default), 2, 4 or 8 symmetries")
    add("--threads", type=int, help="with --on: CPU threads (default: torch's choice)")
    add("--data-root", type=str, help="folder of the data sets (default: JIIO_DATA)")
    add("--json", type=str, help="write the figures to this file instead of to standard output")
    add("--features", type=str, help="generators: file of torch-fidelity's Inception weights, for FID and KID")
    add("--pictures", type=str, help="without --on: a folder for the pictures that the task makes")
    add("--seed", type=int, help="of the noise and the masks (default: the training's; with --on: 0)")
    add("--device", type=str, help="cpu, cuda, cuda:0, mps (default: the training's; with --on: cpu)")
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(Choice, "corruption")
    parser.add_class_arguments(JointConfig, "joint")


def run(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Measure what the command line says."""
    from tasks.files import check_output_file

    json_path = values.pop("json", None)
    if json_path is not None:
        check_output_file("--json", Path(json_path))
    figures = on_pictures(values, json_path) if "on" in values else on_its_own_images(values)
    text = json.dumps(figures, indent=2)
    if json_path is None:
        print(text)
    else:
        write(Path(json_path), figures)
    return 0


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """The figures as a file, whole or not at all."""
    from tasks.files import atomic_write

    atomic_write(path, json.dumps(figures, indent=2).encode() + b"\n")


def on_its_own_images(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint on the test images that its configuration names."""
    from jiio.checks import fail
    from tasks.checkpoint import load
    from tasks.commands import finite, shipped, table
    from tasks.config import look_up
    from tasks.evaluate import evaluate
    from tasks.files import InputError
    from tasks.load import build, merge

    words = values.pop("checkpoint")
    root, drawn = (None if f is None else Path(f) for f in (values.pop(k, None) for k in ("data_root", "pictures")))
    path = shipped("CHECKPOINT", words[0], "weights", ".safetensors")
    for name in ONLY_WITH_ON:
        if values.pop(name, None):
            fail(f"--{name.replace('_', '-')}", "--on with it", "none", "For example --on set12.", InputError)
    checkpoint = load(path)
    if len(words) > 1 or hasattr(look_up("task", checkpoint.config.task, "task"), "restorer"):
        fail("--on", "a set of pictures to measure restorers on", "none", "For example --on set12.", InputError)
    if (features := values.pop("features", None)) is not None:
        if checkpoint.config.task != "generate":
            fail("--features", "a generator", f"a training of the task {checkpoint.config.task!r}", error=InputError)
        values["sampling"] = {"features": features}
    config = build(type(checkpoint.config), merge(dataclasses.asdict(checkpoint.config), values))
    rows = evaluate(checkpoint, config=config, data_root=root, pictures=drawn)
    print(table(rows), file=sys.stderr)
    return {"checkpoint": str(checkpoint.path), "step": checkpoint.step, "rows": finite(rows)}


def on_pictures(values: dict[str, Any], json_path: str | None) -> dict[str, Any]:
    """Restorers and baselines on a set of pictures."""
    from jiio.checks import check_integer, fail
    from tasks.baselines import BASELINES
    from tasks.benchmark import DEFINITIONS, Benchmark, benchmark
    from tasks.commands import finite, table
    from tasks.config import Choice
    from tasks.files import InputError
    from tasks.load import build, merge
    from tasks.loop import check_device
    from tasks.picture_sets import load_set, tuning_pictures
    from tasks.restorers import load_restorer
    from tasks.symmetries import SymmetricRestorer, check_symmetries
    from tasks.threads import cpu_threads
    from tasks.versions import versions

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
        "weights": {label: fingerprint(restorer) for label, restorer in restorers.items()},
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
    from tasks.files import InputError

    stems = [Path(word).stem for word in words]
    named = {stem if stems.count(stem) == 1 else word: word for stem, word in zip(stems, words, strict=True)}
    if len(named) < len(words):
        fail("CHECKPOINT", "different checkpoints", "the same one twice", error=InputError)
    return named


def solve_settings(joint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`jiio.solve` that ``--joint.*`` names; all others are the restorer's choice."""
    from tasks.config import JointConfig
    from tasks.load import build, merge

    config = build(JointConfig, merge(dataclasses.asdict(JointConfig()), joint), "joint.")
    named = {"tolerance" if key in ("atol", "rtol") else key for key in joint}
    return {key: value for key, value in config.arguments().items() if key in named}


def fingerprint(restorer: Any) -> str:
    """Of the weights, so that figures of other weights are not mixed with these."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(restorer.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def earlier(json_path: str | None, head: Mapping[str, Any]) -> Benchmark:
    """The figures of an interrupted run under the same settings; none where the file is not there yet.

    Errors: InputError where the file is of other settings or cannot be read.
    """
    from jiio.checks import fail
    from tasks.benchmark import Benchmark
    from tasks.files import InputError, read_bytes

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
