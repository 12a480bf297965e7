"""The command line: ``jiio restore | demo | train | evaluate | attack | doctor``.

Every mistake of the user is one sentence on standard error and exit code 2, with nothing written. The heavy imports
wait until a command runs, so that ``jiio --help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from jiio.tasks.frame.machine import package_version
from jiio.tasks.frame.registry import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        name = next((word for word in argv if not word.startswith("-")), None)
        parser = build_parser(name, argv)
        try:
            arguments = parser.parse_args(argv, defaults=False)
        except ArgumentError as error:
            return complain(argument_sentence(error, parser, name, argv))
        return COMMANDS[arguments.command].run(as_mapping(arguments[arguments.command]), argv)
    except SystemExit as stop:  # --help and --version end this way
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt as stop:
        print(f"jiio: {str(stop) or 'Interrupted.'}", file=sys.stderr)
        return getattr(stop, "code", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        return 141
    except Exception as error:
        from jiio.checks import JiioError

        if isinstance(error, JiioError):
            return complain(str(error))
        if isinstance(error, OSError):
            return complain(f"{error.filename or 'output'}: {error.strerror or error}.")
        raise


def complain(sentence: str) -> int:
    """One line on standard error; the exit code of a mistake."""
    print(f"jiio: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def build_parser(selected: str | None, argv: Sequence[str]) -> ArgumentParser:
    """The parser; only the selected command declares its arguments, because that can import torch."""

    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    parser = ArgumentParser(prog="jiio", description="Joint inference and input optimisation.", **options)
    parser.add_argument("--version", action="version", version=f"jiio {package_version('jiio')}")
    commands = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        sub = ArgumentParser(description=command.help, **options)
        if name == selected:
            command.declare(sub, argv)
        commands.add_subcommand(name, sub, help=command.help)
    return parser


def argument_sentence(error: ArgumentError, parser: ArgumentParser, command: str | None, argv: Sequence[str]) -> str:
    """The parser's complaint as one sentence that names the option, what was expected and what came."""
    text = " ".join(str(error).split()).rstrip(".")
    text = re.sub(rf'^Parser key "(?:{command}\.)?([^"]+)":\s*', r"--\1: ", text)
    text = re.sub(r"[Ee]xpected an? <class '(\w+)'>\. Got value: (.*)", r"expected \1, got \2", text)
    if command is not None:
        text = text.replace(f" {command}.", " ")
    unknown = re.match(r"[Uu]nrecognized arguments: (--[\w.-]+)", text)
    if unknown:
        known = re.findall(r"(?<=\s)--[\w.-]+", parser.format_help())
        if command in COMMANDS:
            sub = ArgumentParser(exit_on_error=False)
            COMMANDS[command].declare(sub, argv)
            known = re.findall(r"--[\w.-]+", sub.format_help())
        close = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"`jiio {command or ''} --help` lists them."
        return f"{unknown[1]}: no such option; {hint}"
    return f"{text}."


def as_mapping(values: Any) -> Any:
    """Plain dictionaries and lists from the parser's namespaces; only what stood on the command line."""
    if isinstance(values, Namespace):
        return {key: as_mapping(value) for key, value in vars(values).items()}
    if isinstance(values, (list, tuple)):
        return [as_mapping(value) for value in values]
    return dataclasses.asdict(values) if dataclasses.is_dataclass(values) else values  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
