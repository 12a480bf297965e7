"""What the subcommands of ``jiio`` take and do. A command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from tasks import attack_command, evaluate_command, fit_command, language_commands, restore_command

if TYPE_CHECKING:
    from tasks.config import RunConfig

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Command:
    """One subcommand: what it is for, which arguments it takes (they may depend on the words given), what it does."""

    help: str
    declare: Callable[[ArgumentParser, Sequence[str]], None]
    run: Callable[[dict[str, Any], Sequence[str]], int]


def shipped(argument: str, word: str, folder: str, suffix: str) -> Path:
    """A path, or the name of a file that comes with the package."""
    path = Path(word)
    named = HERE / folder / f"{word}{suffix}"
    if not path.exists() and Path(word).name == word and named.exists():
        return named
    if not path.exists():
        from tasks.files import InputError

        names = ", ".join(sorted(p.stem for p in (HERE / folder).glob(f"*{suffix}"))) or "none"
        raise InputError(f"{argument}: no file is called {word!r}, and none of the shipped ones ({names}).")
    return path


def declare_demo(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--fast", action="store_true", help="use the weights that come with jiio instead of training")
    parser.add_argument("--output", type=str, default="jiio-demo", help="folder for the pictures and the report")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def run_demo(values: dict[str, Any], argv: Sequence[str]) -> int:
    from jiio.checks import check_integer
    from tasks.files import check_output_folder

    output = check_output_folder("--output", Path(values.get("output", "jiio-demo")))
    seed = check_integer("--seed", values.get("seed", 0), 0)
    from tasks import demo

    demo.run(fast=values.get("fast", False), output=output, seed=seed)
    return 0


def named_config(argv: Sequence[str]) -> type[RunConfig]:
    """The class of the configuration that a command line names; where it names none that can be read, the default.

    What is wrong with the file is said when the command runs.
    """
    from jiio.checks import JiioError
    from tasks.config import config_class
    from tasks.load import read_yaml

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
    from tasks.config import config_class
    from tasks.load import build, merge, read_yaml
    from tasks.loop import train

    path = shipped("CONFIG", values.pop("config"), "configs", ".yaml")
    resume, root = values.pop("resume", False), values.pop("data_root", None)
    values = merge(read_yaml("CONFIG", path), values)
    config = build(config_class(values), values)
    again = shlex.join(["jiio", *argv, *([] if resume else ["--resume"])])
    data_root = None if root is None else Path(root)
    done = train(config, resume=resume, data_root=data_root, resume_hint=f"Continue by: {again}")
    print(f"Trained {done.step} steps; weights in {Path(config.output) / 'weights.safetensors'}.", file=sys.stderr)
    return 0


def table(rows: list[dict[str, str | float]]) -> str:
    """Rows with the same keys as aligned columns."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[f"{v:.4g}" if isinstance(v := row.get(head, ""), float) else str(v) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [[word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in [heads, *cells]]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def finite(rows: list[dict[str, str | float]]) -> list[dict[str, str | float | None]]:
    """JSON knows neither NaN nor infinity: they become null."""
    return [
        {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()} for row in rows
    ]


def declare_doctor(parser: ArgumentParser, argv: Sequence[str]) -> None:
    pass


def run_doctor(values: dict[str, Any], argv: Sequence[str]) -> int:
    from tasks import doctor

    return doctor.main()


COMMANDS = {
    "restore": Command("make better pictures of your own ones", restore_command.declare, restore_command.run),
    "fit": Command("fit a generator's code to a picture", fit_command.declare, fit_command.run),
    "demo": Command("show the whole idea on small pictures", declare_demo, run_demo),
    "train": Command("train what a YAML file describes", declare_train, run_train),
    "evaluate": Command("measure a trained model on test images", evaluate_command.declare, evaluate_command.run),
    "write": Command(
        "continue a text with a trained language model", language_commands.declare_write, language_commands.run_write
    ),
    "prompt": Command(
        "find the soft prompt that makes a language model say a text",
        language_commands.declare_prompt,
        language_commands.run_prompt,
    ),
    "attack": Command("attack a trained classifier", attack_command.declare, attack_command.run),
    "doctor": Command("versions, devices, extras, and a gradient check on this machine", declare_doctor, run_doctor),
}
