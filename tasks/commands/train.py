"""``jiio train``: what a YAML file describes, with the options of the command line laid on it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.shipped import shipped

if TYPE_CHECKING:
    from jiio.tasks.frame.config import RunConfig


def named_config(argv: Sequence[str]) -> type[RunConfig]:
    """The class of the configuration that a command line names; where it names none that can be read, the default.

    What is wrong with the file is said when the command runs.
    """
    from jiio.checks import JiioError
    from jiio.tasks.frame.load import read_yaml
    from jiio.tasks.frame.registry import config_class

    for word in argv[1:]:
        with contextlib.suppress(JiioError, OSError):
            return config_class(read_yaml("CONFIG", shipped("CONFIG", word, "configs", ".yaml")))
    return config_class({})


def declare_train(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("config", type=str, help="a YAML file, or the name of one that comes with jiio")
    parser.add_argument("--resume", action="store_true", help="continue the training in the output folder exactly")
    parser.add_argument("--data-root", type=str, help="folder of the data sets (default: JIIO_DATA)")
    parser.add_class_arguments(named_config(argv), None)


def run_train(values: dict[str, Any], argv: Sequence[str]) -> int:
    from jiio.tasks.frame.load import build, merge, read_yaml
    from jiio.tasks.frame.loop import train
    from jiio.tasks.frame.registry import config_class

    path = shipped("CONFIG", values.pop("config"), "configs", ".yaml")
    resume, root = values.pop("resume", False), values.pop("data_root", None)
    values = merge(read_yaml("CONFIG", path), values)
    config = build(config_class(values), values)
    again = shlex.join(["jiio", *argv, *([] if resume else ["--resume"])])
    data_root = None if root is None else Path(root)
    done = train(config, resume=resume, data_root=data_root, resume_hint=f"Continue by: {again}")
    print(f"Trained {done.step} steps; weights in {Path(config.output) / 'weights.safetensors'}.", file=sys.stderr)
    return 0
