"""A class that a configuration names, with the options of its constructor.

Strings stand in YAML files and on the command line only: a name becomes an object before anything runs, and an unknown
name or option is an error that names the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jiio.checks import JiioError, describe, fail

from .load import ConfigError, nearest
from .paths import check_allowed, is_path
from .registry import TABLE, look_up

T = TypeVar("T", bound=type)


def lists_choices(cls: T) -> T:
    """The class, with ``{kind}`` in its docstring replaced by the names of that kind, those of other packages too.

    The docstring of a configuration is the help of the command line. So it never has to be edited for a new choice.
    """
    for kind, members in TABLE.items():
        cls.__doc__ = (cls.__doc__ or "").replace(f"{{{kind}}}", ", ".join(sorted(members)))
    return cls


def plain(value: Any) -> bool:
    """Whether YAML and JSON can say it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(v) for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


@dataclass(frozen=True)
class Choice:
    """One of the classes of a kind.

    Args:
        name: of the class, or an import path package.module:Name of one's own
        options: the keyword arguments of its constructor
    """

    name: str = ""  # the empty name is in no table: a default that is always refused
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if is_path(self.name):
            check_allowed(self.name, "name")
        for key, value in self.options.items():
            if not plain(value):  # a checkpoint could not give it back
                remedy = "Objects have no place in a configuration."
                fail(f"options.{key}", "numbers, words, lists and mappings", describe(value), remedy, ConfigError)

    def make(self, kind: str, where: str) -> Any:
        """The object. ``where`` is the key of this choice, for messages."""
        cls = look_up(kind, self.name, f"{where}.name")
        valid = inspect.signature(cls).parameters
        for key in self.options:
            if key not in valid:
                raise ConfigError(f"{where}.options.{key}: {self.name} has no such option. {nearest(key, valid)}")
        # YAML and JSON have lists where Python's frozen classes want tuples.
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in self.options.items()}
        try:
            return cls(**options)
        except JiioError as error:
            raise ConfigError(f"{where}.options, {error}") from error
        except (TypeError, ValueError) as error:  # an option is missing; our classes check the values themselves
            raise ConfigError(f"{where}.options: {self.name} cannot be built, {error}.") from error


def paths_of(config: Any) -> list[str]:
    """The import paths that a configuration names, nested ones included."""
    found = [config.name] if isinstance(config, Choice) else []
    if isinstance(config, (list, tuple)):
        return [path for part in config for path in paths_of(part)]
    if dataclasses.is_dataclass(config):
        found += [path for f in dataclasses.fields(config) for path in paths_of(getattr(config, f.name))]
    # Two kinds of names stand in a configuration without options: what is trained, and where the images come from.
    found += [getattr(config, key, None) for key in ("task", "family")]
    return [name for name in (*found, *getattr(config, "families", ())) if isinstance(name, str) and is_path(name)]
