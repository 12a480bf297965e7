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
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .load import ConfigError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

HOME = Path(__file__).parents[1]
PACKAGE = __name__.rpartition(".frame")[0]


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


def rooms() -> Iterator[ModuleType]:
    """Ours, by name, then those of installed packages."""
    for folder in sorted(path.parent for path in HOME.glob("*/__init__.py")):
        yield importlib.import_module(f"{PACKAGE}.{folder.name}")
    for entry in sorted(importlib.metadata.entry_points(group="jiio.tasks"), key=lambda e: e.name):
        yield importlib.import_module(entry.value)


def fetch(path: str) -> Any:
    """What stands at ``package.module:Name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


TASKS: dict[str, str] = {}
CONFIGS: dict[str, str] = {}
COMMANDS: dict[str, Command] = {}
KINDS: dict[str, str] = {}
TABLE: dict[str, dict[str, str]] = {"task": TASKS}


def _enter(room: ModuleType) -> None:
    """Write what a room says into the tables."""

    def at(path: str) -> str:
        return f"{room.__name__}{path}" if path.startswith(".") else path

    for name, (task, config) in getattr(room, "TASKS", {}).items():
        TASKS[name], CONFIGS[name] = at(task), at(config)
    for name, (help, declare, run) in getattr(room, "COMMANDS", {}).items():
        COMMANDS[name] = Command(help, (at(declare), at(run)))
    for kind, base in getattr(room, "KINDS", {}).items():
        KINDS[kind] = at(base)
    for kind, members in getattr(room, "CHOICES", {}).items():
        TABLE.setdefault(kind, {}).update({name: at(path) for name, path in members.items()})


for _room in rooms():
    _enter(_room)


def look_up(kind: str, name: str, where: str) -> Any:
    """The class that ``name`` stands for among the choices of a kind. where: its key, for messages."""
    if name not in TABLE[kind]:
        raise ConfigError(f"{where}: no {kind} is called {name!r}. {nearest(name, TABLE[kind])}")
    return fetch(TABLE[kind][name])


def config_class(values: Mapping[str, Any]) -> type[Any]:
    """The class of a configuration, from the task that its values name."""
    return fetch(CONFIGS.get(str(values.get("task")), CONFIGS["restore"]))
