"""The command line: ``jiio restore | demo | train | evaluate | compare | attack | doctor``.

Every mistake of the user is one sentence on standard error and exit code 2, with nothing written. The heavy imports
wait until a command runs, so that ``jiio --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from jiio.tasks.frame.load import nearest
from jiio.tasks.frame.machine import package_version
from jiio.tasks.frame.paths import allowing
from jiio.tasks.frame.registry import COMMANDS
from jiio.tasks.frame.terminal import abandon, sentence, streams

ALLOW = "code of your own that a checkpoint may name: package.module:Name, a module or a package; may be repeated"
BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with streams():
        try:
            code = exit_code(argv)
            sys.stdout.flush()  # here, and not when Python ends, a full disk can still become a sentence
            return code
        except KeyboardInterrupt as stop:
            print(f"jiio: {sentence(str(stop)) or 'Interrupted.'}", file=sys.stderr)
            return getattr(stop, "code", 130)
        except BrokenPipeError:
            abandon(sys.stdout)
            return BROKEN_PIPE
        except Exception as error:
            return excuse(error)


def exit_code(argv: Sequence[str]) -> int:
    """That of a command; the parser ends --help and --version by an exception."""
    try:
        return answer(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2


def answer(argv: Sequence[str]) -> int:
    """Read the command line and do what it says."""
    name = next((word for word in argv if not word.startswith("-")), None)
    look_here()
    parser = build_parser(name, argv)
    if not argv:
        parser.print_help()
        return 0
    if name is not None and argv[0] == name and name not in COMMANDS:
        return complain(f"{name!r}: no such command. {nearest(name, COMMANDS)}")

    try:
        arguments = parser.parse_args(argv, defaults=False)
    except ArgumentError as error:
        return complain(argument_sentence(error, parser, name, argv))
    values = as_mapping(arguments[arguments.command])
    with allowing(values.pop("allow", ())):
        return COMMANDS[arguments.command].run(values, argv)


def look_here() -> None:
    """Let modules be named that lie where the command is started; last, so that none of them hides an installed one."""
    with contextlib.suppress(OSError):  # the folder may be gone
        here = os.getcwd()
        if not sys.flags.safe_path and here not in sys.path:
            sys.path.append(here)


def excuse(error: Exception) -> int:
    """The sentence for what went wrong; raised again where nobody foresaw it."""
    from jiio.checks import JiioError

    if isinstance(error, JiioError):
        return complain(str(error))
    if isinstance(error, OSError):
        if error.filename is None:
            abandon(sys.stdout)  # it may be the one that is full
        return complain(f"{error.filename or 'output'}: {error.strerror or error}.")
    raise error


def complain(words: str) -> int:
    """One line on standard error; the exit code of a mistake."""
    print(f"jiio: {sentence(words)}", file=sys.stderr)
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
            sub.add_argument("--allow", type=str, action="append", metavar="PATH", help=ALLOW)
        commands.add_subcommand(name, sub, help=command.help)
    return parser


def argument_sentence(error: ArgumentError, parser: ArgumentParser, command: str | None, argv: Sequence[str]) -> str:
    """The parser's complaint as one sentence that names the option, what was expected and what came."""
    text = " ".join(str(error).split()).rstrip(".")
    unknown = re.match(r"[Uu]nrecognized arguments: (--[\w.-]+)", text)
    if unknown:
        return f"{unknown[1]}: no such option; {hint(unknown[1], parser, command, argv)}"

    missing = re.fullmatch(r"the following arguments are required: (.*)", text)
    if missing:
        known = options_of(parser, command, argv)
        names = (name.removeprefix(f"{command}.") for name in missing[1].split(", "))
        words = (f"--{name}" if f"--{name}" in known else name for name in names)
        return f"the following arguments are required: {', '.join(words)}."

    # The parser speaks of keys and classes where the user typed options and words.
    text = re.sub(rf'^Parser key "(?:{command}\.)?([^"]+)":\s*', r"--\1: ", text)
    text = re.sub(r"[Ee]xpected an? <class '(\w+)'>\. Got value: (.*)", r"expected \1, got \2", text)
    return f"{text if command is None else text.replace(f' {command}.', ' ')}."


def hint(option: str, parser: ArgumentParser, command: str | None, argv: Sequence[str]) -> str:
    """The option that may have been meant: a key of that name somewhere below, or one spelt nearly so."""
    known = options_of(parser, command, argv)
    below = [name for name in known if name.endswith(f".{option.removeprefix('--')}")]
    close = below or difflib.get_close_matches(option, known, n=1)
    return f"did you mean {close[0]}?" if close else f"`jiio {command or ''} --help` lists them."


def options_of(parser: ArgumentParser, command: str | None, argv: Sequence[str]) -> list[str]:
    """The options that there are, of the command or of the top."""
    if command not in COMMANDS:
        return re.findall(r"(?<=\s)--[\w.-]+", parser.format_help())
    sub = ArgumentParser(exit_on_error=False)
    COMMANDS[command].declare(sub, argv)
    return ["--allow", *re.findall(r"--[\w.-]+", sub.format_help())]


def as_mapping(values: Any) -> Any:
    """Plain dictionaries and lists from the parser's namespaces; only what stood on the command line."""
    if isinstance(values, Namespace):
        return {key: as_mapping(value) for key, value in vars(values).items()}
    if isinstance(values, (list, tuple)):
        return [as_mapping(value) for value in values]
    return dataclasses.asdict(values) if dataclasses.is_dataclass(values) else values  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
