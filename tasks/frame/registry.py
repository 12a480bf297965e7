"""What the rooms offer: tasks, commands, and the classes that a configuration may name.

A room is a package beside this one whose ``__init__`` says in plain data what is inside, and nobody else keeps a list:

    TASKS = {"classify": (".task:Classify", ".task:ClassifyConfig")}              task -> its class, its configuration
    COMMANDS = {"attack": ("attack a classifier", ".command:declare", ".command:run")}
    KINDS = {"defence": ".defences:AbstractDefence"}                              kind -> the base class of its members
    CHOICES = {"defence": {"Clean": ".defences:Clean"}}                           kind -> name -> class

A path that begins with a dot is inside the room. An installed package adds a room of its own by an entry point of the
group ``jiio.tasks`` whose value is the room's module. Nothing here loads what a room names before somebody asks for it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .load import ConfigError, nearest
from .paths import fetch, import_path, is_path

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

HOME = Path(__file__).parents[1]
PACKAGE = __name__.rpartition(".frame")[0]
GROUP = "jiio.tasks"


@dataclass(frozen=True)
class Command:
    """One subcommand: what it is for; where the function stands that declares its arguments, and the one that runs."""

    help: str
    at: tuple[str, str]

    def declare(self, parser: ArgumentParser, argv: Sequence[str]) -> None:
        """Add the arguments to the parser; they may depend on the words given."""
        fetch(self.at[0])(parser, argv)

    def run(self, values: dict[str, Any], argv: Sequence[str]) -> int:
        """Do it; the exit code."""
        return fetch(self.at[1])(values, argv)


TASKS: dict[str, str] = {}
CONFIGS: dict[str, str] = {}
COMMANDS: dict[str, Command] = {}
KINDS: dict[str, str] = {}
TABLE: dict[str, dict[str, str]] = {"task": TASKS}
FOLDERS: list[Path] = []  # of the rooms; their configs/ and weights/ can be called by name
BROKEN: dict[str, str] = {}  # entry point -> why its room is not here


def _rooms() -> Iterator[ModuleType]:
    """Ours, by name, then those of installed packages; a package that is broken must not take the rest down.

    The attacks are no room of tasks, and say what they offer in the same words.
    """
    yield importlib.import_module("jiio.attacks")
    for folder in sorted(path.parent for path in HOME.glob("*/__init__.py")):
        yield importlib.import_module(f"{PACKAGE}.{folder.name}")

    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        try:
            yield importlib.import_module(entry.value)
        except Exception as error:  # somebody else's module may raise anything
            BROKEN[entry.name] = f"{entry.value} cannot be imported ({type(error).__name__}: {error})"


def enter(room: ModuleType) -> None:
    """Write what a room says into the tables.

    Errors: ConfigError where a name is taken already, before anything of the room is entered.
    """
    name = room.__name__
    tasks, commands = dict(getattr(room, "TASKS", {})), dict(getattr(room, "COMMANDS", {}))
    kinds, choices = dict(getattr(room, "KINDS", {})), dict(getattr(room, "CHOICES", {}))

    # A second meaning of a name would change what configurations and checkpoints of others say.
    taken = [*(TASKS.keys() & tasks), *(COMMANDS.keys() & commands), *(KINDS.keys() & kinds)]
    taken += [key for kind, members in choices.items() for key in TABLE.get(kind, {}).keys() & members]
    if taken:
        raise ConfigError(f"{name}: the name {taken[0]!r} is taken by another room. Choose another one.")

    def at(path: str) -> str:
        return f"{name}{path}" if path.startswith(".") else path

    for key, (task, config) in tasks.items():
        TASKS[key], CONFIGS[key] = at(task), at(config)
    for key, (help, declare, run) in commands.items():
        COMMANDS[key] = Command(help, (at(declare), at(run)))
    KINDS.update({kind: at(base) for kind, base in kinds.items()})
    for kind, members in choices.items():
        TABLE.setdefault(kind, {}).update({key: at(path) for key, path in members.items()})
    FOLDERS.extend(Path(folder) for folder in room.__path__)


def _open() -> None:
    """Enter all rooms."""
    for room in _rooms():
        try:
            enter(room)
        except Exception as error:
            if room.__name__.startswith(f"{PACKAGE}."):
                raise  # ours: a mistake that a test must see
            BROKEN[room.__name__] = str(error)


_open()


def look_up(kind: str, name: str, where: str) -> Any:
    """The class that ``name`` stands for among the choices of a kind, or at ``package.module:Name``.

    where: the key that holds the name, for messages.

    Errors: ConfigError where there is none, where it is not of the kind, or where nobody has allowed the path.
    """
    if not is_path(name):
        if name not in TABLE[kind]:
            lost = "".join(f" ({reason}.)" for reason in BROKEN.values())
            raise ConfigError(f"{where}: no {kind} is called {name!r}. {nearest(name, TABLE[kind])}{lost}")
        return fetch(TABLE[kind][name])

    if kind not in KINDS:
        raise ConfigError(f"{where}: for a {kind} only these names are accepted. {nearest(name, TABLE[kind])}")
    found, base = import_path(name, where), fetch(KINDS[kind])
    if not (isinstance(found, type) and issubclass(found, base)):
        came = f"{name}, which is {'another class' if isinstance(found, type) else f'a {type(found).__name__}'}"
        remedy = f"Derive it from {base.__module__}.{base.__name__}."
        raise ConfigError(f"{where}: expected a class of the kind {kind}, got {came}. {remedy}")
    return found


def config_class(values: Mapping[str, Any]) -> type[Any]:
    """The class of a configuration, from the task that its values name: a room's, or the ``Config`` of one's own."""
    task = values.get("task")
    if isinstance(task, str) and is_path(task):
        return look_up("task", task, "task").Config
    return fetch(CONFIGS.get(str(task), CONFIGS["restore"]))
