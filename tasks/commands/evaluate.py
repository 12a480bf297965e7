"""``jiio evaluate``: a trained model on its own test images, or restorers beside baselines on a set of pictures."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from jiio.outputs.tables import write
from jiio.tasks.restore.compare.command import on_pictures

ONLY_WITH_ON = ("per_image", "limit", "no_baselines", "resume", "threads", "symmetries")


def declare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments."""
    from jiio.tasks.frame.choices import Choice
    from jiio.tasks.images.config import DataConfig
    from jiio.tasks.solving.settings import JointConfig

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
    from jiio.tasks.frame.files import check_output_file

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


def on_its_own_images(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint on the test images that its configuration names."""
    from jiio.checks import fail
    from jiio.outputs.tables import finite, table
    from jiio.tasks.frame.checkpoint import load
    from jiio.tasks.frame.evaluate import evaluate
    from jiio.tasks.frame.files import InputError
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.frame.shipped import shipped
    from jiio.tasks.frame.task import overrides, task_of

    words = values.pop("checkpoint")
    root, drawn = (None if f is None else Path(f) for f in (values.pop(k, None) for k in ("data_root", "pictures")))
    path = shipped("CHECKPOINT", words[0], "weights", ".safetensors")
    for name in ONLY_WITH_ON:
        if values.pop(name, None):
            fail(f"--{name.replace('_', '-')}", "--on with it", "none", "For example --on set12.", InputError)
    checkpoint = load(path)
    if len(words) > 1 or overrides(task_of(checkpoint), "restorer"):
        fail("--on", "a set of pictures to measure restorers on", "none", "For example --on set12.", InputError)
    if (features := values.pop("features", None)) is not None:
        if checkpoint.config.task != "generate":
            fail("--features", "a generator", f"a training of the task {checkpoint.config.task!r}", error=InputError)
        values["sampling"] = {"features": features}
    config = build(type(checkpoint.config), merge(dataclasses.asdict(checkpoint.config), values))
    rows = evaluate(checkpoint, config=config, data_root=root, pictures=drawn)
    print(table(rows), file=sys.stderr)
    return {"checkpoint": str(checkpoint.path), "step": checkpoint.step, "rows": finite(rows)}
