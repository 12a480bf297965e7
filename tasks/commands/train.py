"""``jiio train``: what a YAML file describes, with the options of the command line laid on it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare, left
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.terminal import say
from jiio.tasks.frame.written import named_config


@dataclass(frozen=True)
class TrainOptions:
    """What to train; all other options are keys of the configuration.

    Args:
        config: a YAML file, the name of one that comes with jiio, or with --resume the folder of a training
        resume: continue the training in the output folder exactly
        dry_run: take one step on two samples, say what the model and the step cost, and write nothing
        data_root: folder of the data sets (default: JIIO_DATA)
    """

    config: str
    resume: bool = False
    dry_run: bool = False
    data_root: Path | None = None


def declare_train(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options, and every key of the configuration that the command line names."""
    declare(parser, TrainOptions)
    parser.add_class_arguments(named_config(argv), None)


def run_train(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Train, and say where the weights are."""
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.frame.loop import train
    from jiio.tasks.frame.place import WEIGHTS
    from jiio.tasks.frame.post import Post
    from jiio.tasks.frame.registry import config_class

    options = chosen(TrainOptions, values)
    keys = merge(written(options), left(TrainOptions, values))
    config = build(config_class(keys), keys)

    if options.dry_run:
        from jiio.tasks.frame.dry import dry_run

        say(dry_run(config, resume=options.resume, data_root=options.data_root))
        return 0

    # Whoever stops the training is told the line that goes on with it.
    again = shlex.join(["jiio", *argv, *([] if options.resume else ["--resume"])])
    hint = f"Continue by: {again}"
    done = train(config, resume=options.resume, data_root=options.data_root, resume_hint=hint)
    if Post.of().leads:
        say(f"Trained {done.step} steps; weights in {Path(config.output) / WEIGHTS}.")
    return 0


def written(options: TrainOptions) -> dict[str, Any]:
    """The keys in the file that the command line names, or in the last checkpoint of the folder.

    Errors: JiioError.
    """
    from jiio.checks import fail
    from jiio.tasks.frame.checkpoint import load_newest
    from jiio.tasks.frame.files import InputError
    from jiio.tasks.frame.load import read_yaml

    path = shipped("CONFIG", options.config, "configs", ".yaml")
    if not path.is_dir():
        return read_yaml("CONFIG", path)
    if not options.resume:
        remedy = "Pass --resume to go on with the training in a folder."
        fail("CONFIG", "a YAML file", f"the folder {path}", remedy, InputError)

    # The folder goes with its name, wherever it has been moved to.
    last = load_newest(path, say)
    if last is None:
        fail("CONFIG", "the folder of a training", f"{path}, without a checkpoint", error=InputError)
    return {**dataclasses.asdict(last.config), "output": str(path)}
