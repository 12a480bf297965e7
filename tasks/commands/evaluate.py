"""``jiio evaluate``: a trained model on the test images of its own configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, check_threads, chosen, declare, left

if TYPE_CHECKING:
    from jiio.tasks.frame.checkpoint import Checkpoint
    from jiio.tasks.frame.config import RunConfig
    from jiio.tasks.frame.outputs import Outputs

OTHERWISE = ("seed", "device", "threads")  # what every training has and a measurement may do otherwise
# The keys of a task of its own that may be others than in the training; a configuration class that has other ones
# says so in its own MEASURED.
MEASURED = ("data", "corruption", "joint")
MOST_WORDS = 100  # of a command line, among which the checkpoint is looked for


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure; all other options are keys of the configuration of the checkpoint.

    Args:
        checkpoint: a checkpoint, the folder of a training, or shipped weights
        data_root: folder of the data sets (default: JIIO_DATA)
        json: write the figures to this file instead of to standard output
        pictures: a new folder for the pictures that the task makes
        overwrite: replace files that exist; what is given, never
    """

    checkpoint: str
    data_root: Path | None = None
    json: Path | None = None
    pictures: Path | None = None
    overwrite: bool = False


def declare_evaluate(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options, and the keys of the checkpoint's configuration that a measurement may change."""
    if any(word.partition("=")[0] == "--on" for word in argv):
        raise InputError(
            "--on: expected a trained model and its own test images, got a set of pictures. "
            "Measure restorers on it by: jiio compare CHECKPOINT ... --on SET."
        )
    declare(parser, EvaluateOptions)
    cls = named_config(argv)
    wanted = (*OTHERWISE, *getattr(cls, "MEASURED", MEASURED))
    parser.add_class_arguments(cls, None, skip={f.name for f in dataclasses.fields(cls) if f.name not in wanted})


def named_config(argv: Sequence[str]) -> type[RunConfig]:
    """The class of the configuration in the checkpoint that a command line names, read without its tensors.

    What is wrong with the file is said when the command runs.
    """
    from safetensors import SafetensorError

    from jiio.tasks.frame.checkpoint import checkpoints
    from jiio.tasks.frame.hub import PREFIX, fetched
    from jiio.tasks.frame.paths import only
    from jiio.tasks.frame.registry import config_class
    from jiio.tasks.frame.sealed import UNUSABLE, configured
    from jiio.tasks.frame.shipped import shipped

    # Whatever a stranger's file brings up; run_evaluate reads it again, and says what is wrong.
    for word in argv[1:MOST_WORDS]:
        if word.startswith(PREFIX):  # a hub that does not answer is waited for once
            word = str(fetched("CHECKPOINT", word))
        with contextlib.suppress(*UNUSABLE, SafetensorError):
            path = shipped("CHECKPOINT", word, "weights", ".safetensors")
            path = checkpoints(path)[-1] if path.is_dir() else path
            with only(()):  # no code of a stranger's choice is loaded to find out
                return config_class(configured(path))
    return config_class({})


def run_evaluate(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Measure what the command line says."""
    from jiio.outputs.tables import finite, table, write
    from jiio.tasks.frame.evaluate import evaluate
    from jiio.tasks.frame.post import Post

    options, keys = chosen(EvaluateOptions, values), left(EvaluateOptions, values)
    check_seed(keys.get("seed"))
    check_threads(keys.get("threads"))
    checkpoint, config = opened(options, keys)
    rows = evaluate(checkpoint, config=config, data_root=options.data_root, pictures=options.pictures)
    if not Post.of().leads:
        return 0
    print(table(rows), file=sys.stderr)

    # JSON knows neither NaN nor infinity.
    figures = {"checkpoint": str(checkpoint.path), "step": checkpoint.step, "rows": finite(rows)}
    if options.json is None:
        print(json.dumps(figures, indent=2))
    else:
        write(options.json, figures)
    return 0


def opened(options: EvaluateOptions, keys: dict[str, Any]) -> tuple[Checkpoint, RunConfig]:
    """The checkpoint, and its configuration with the keys of the command line laid on it.

    Errors: JiioError, also where the results may not go where they shall.
    """
    from jiio.tasks.frame.checkpoint import load
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.frame.outputs import Outputs, of_checkpoint, of_config
    from jiio.tasks.frame.shipped import shipped

    # Asked before anything large is read, and once more when it is known which pictures it names.
    path = shipped("CHECKPOINT", options.checkpoint, "weights", ".safetensors")
    given = of_checkpoint(path)
    check_places(options, Outputs(given, options.overwrite))
    checkpoint = load(path)
    check_task(checkpoint)
    config = build(type(checkpoint.config), merge(dataclasses.asdict(checkpoint.config), keys))
    check_places(options, Outputs((*given, *of_config(config)), options.overwrite))
    return checkpoint, config


def check_places(options: EvaluateOptions, outputs: Outputs) -> None:
    """Refuse what must not be written to."""
    if options.json is not None:
        outputs.file("--json", options.json)
    if options.pictures is not None:
        outputs.empty("--pictures", options.pictures)


def check_task(checkpoint: Checkpoint) -> None:
    """Restorers have no test images of their own."""
    from jiio.checks import fail
    from jiio.tasks.frame.task import task_of

    if task_of(checkpoint).ANY_SIZE:
        came = f"{checkpoint.path}, a restorer of pictures of any size"
        remedy = "Measure it by: jiio compare CHECKPOINT --on set12."
        fail("CHECKPOINT", "a model with test images of its own", came, remedy, InputError)
