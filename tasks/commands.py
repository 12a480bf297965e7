"""What the subcommands of ``jiio`` take and do. A command imports what it needs when it runs."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Command:
    """One subcommand: what it is for, which arguments it takes, what it does."""

    help: str
    declare: Callable[[ArgumentParser], None]
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


def declare_demo(parser: ArgumentParser) -> None:
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


def declare_train(parser: ArgumentParser) -> None:
    from tasks.config import TrainConfig

    parser.add_argument("config", type=str, help="a YAML file, or the name of one that comes with jiio")
    parser.add_argument("--resume", action="store_true", help="continue the training in the output folder exactly")
    parser.add_argument("--data-root", type=str, help="folder of the data sets (default: JIIO_DATA)")
    parser.add_class_arguments(TrainConfig, None)


def run_train(values: dict[str, Any], argv: Sequence[str]) -> int:
    from tasks.config import TrainConfig
    from tasks.load import build, merge, read_yaml
    from tasks.loop import train

    path = shipped("CONFIG", values.pop("config"), "configs", ".yaml")
    resume, root = values.pop("resume", False), values.pop("data_root", None)
    config = build(TrainConfig, merge(read_yaml("CONFIG", path), values))
    again = shlex.join(["jiio", *argv, *([] if resume else ["--resume"])])
    data_root = None if root is None else Path(root)
    done = train(config, resume=resume, data_root=data_root, resume_hint=f"Continue by: {again}")
    print(f"Trained {done.step} steps; weights in {Path(config.output) / 'weights.safetensors'}.", file=sys.stderr)
    return 0


def declare_evaluate(parser: ArgumentParser) -> None:
    from tasks.config import Choice, DataConfig, JointConfig

    parser.add_argument("checkpoint", type=str, help="a checkpoint, the folder of a training, or shipped weights")
    parser.add_argument("--data-root", type=str, help="folder of the data sets (default: JIIO_DATA)")
    parser.add_argument("--json", type=str, help="write the figures to this file instead of to standard output")
    parser.add_argument("--seed", type=int, help="of the noise and the masks (default: the training's)")
    parser.add_argument("--device", type=str, help="cpu, cuda, cuda:0, mps (default: the training's)")
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(Choice, "corruption")
    parser.add_class_arguments(JointConfig, "joint")


def run_evaluate(values: dict[str, Any], argv: Sequence[str]) -> int:
    from tasks.checkpoint import load
    from tasks.config import TrainConfig
    from tasks.evaluate import evaluate
    from tasks.files import atomic_write, check_output_file
    from tasks.load import build, merge

    path = shipped("CHECKPOINT", values.pop("checkpoint"), "weights", ".safetensors")
    root, json_path = values.pop("data_root", None), values.pop("json", None)
    if json_path is not None:
        check_output_file("--json", Path(json_path))
    checkpoint = load(path)
    config = build(TrainConfig, merge(dataclasses.asdict(checkpoint.config), values))
    rows = evaluate(checkpoint, config=config, data_root=None if root is None else Path(root))
    print(table(rows), file=sys.stderr)
    text = json.dumps({"checkpoint": str(checkpoint.path), "step": checkpoint.step, "rows": finite(rows)}, indent=2)
    if json_path is None:
        print(text)
    else:
        atomic_write(Path(json_path), text.encode() + b"\n")
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


def declare_doctor(parser: ArgumentParser) -> None:
    pass


def run_doctor(values: dict[str, Any], argv: Sequence[str]) -> int:
    from tasks import doctor

    return doctor.main()


COMMANDS = {
    "demo": Command("show the whole idea on small pictures", declare_demo, run_demo),
    "train": Command("train what a YAML file describes", declare_train, run_train),
    "evaluate": Command("measure a trained model on its test images", declare_evaluate, run_evaluate),
    "doctor": Command("versions, devices, extras, and a gradient check on this machine", declare_doctor, run_doctor),
}
