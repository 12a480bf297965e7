"""From a YAML file, or any mapping, to a frozen dataclass; every mistake is a sentence that names the key.

The reader is stricter than YAML: no duplicate keys, no anchors and aliases (they can unfold without end), no Python
objects; and kinder: ``1e-3`` is a number.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jiio.checks import JiioError, describe, fail

from .files import read_text

T = TypeVar("T")


class ConfigError(JiioError, ValueError):
    """A configuration that cannot be used."""


def nearest(word: str, words: Iterable[str]) -> str:
    """A remedy that names the nearest valid word, or all of them."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else "Valid: " + ", ".join(words) + "."


def read_yaml(argument: str, path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("anchors and aliases are not accepted here")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            doubles = sorted({key for key in keys if keys.count(key) > 1})
            if doubles:
                raise yaml.YAMLError(f"the key {doubles[0]!r} stands twice")
            return super().construct_mapping(node, deep)

    # YAML 1.1 wants a dot and a signed exponent in a float and reads 1e-3 as text.
    number = re.compile(r"^[-+]?\d+\.?\d*[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    text = read_text(argument, path, "a YAML file")
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        fail(argument, "a YAML file", f"{path}, which cannot be parsed ({words})", error=ConfigError)
    if not isinstance(value, dict):
        fail(argument, "a YAML file of keys and values", f"{path}, which holds {describe(value)}", error=ConfigError)
    return value


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """An instance of a frozen dataclass from a mapping, nested ones included; absent keys keep their default.

    Keys of a nested one are laid on the default that stands in that place, as :func:`merge` does.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in fields:
            remedy = nearest(str(key), fields)
            raise ConfigError(f"{name}: no such key in {where.rstrip('.') or 'the configuration'}. {remedy}")
        default = fields[key].default
        if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            value = merge(dataclasses.asdict(default), value)  # type: ignore[arg-type]
        arguments[key] = convert(hints[key], value, name)
    return cls(**arguments)


def convert(kind: Any, value: Any, name: str) -> Any:
    """``value`` as the annotated type ``kind`` of the field ``name``."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [part for part in parts if part is not type(None)]
        return None if value is None and len(inner) < len(parts) else convert(inner[0], value, name)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            keys = ", ".join(f.name for f in dataclasses.fields(kind))
            fail(name, f"keys and values ({keys})", describe(value), error=ConfigError)
        return build(kind, value, f"{name}.")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            fail(name, "a list", describe(value), error=ConfigError)
        return tuple(convert(parts[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            fail(name, "names and values", describe(value), error=ConfigError)
        return dict(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # exact, because a truth value is not a number
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        fail(name, words[kind], describe(value), error=ConfigError)
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, key by key; a choice with a ``name`` is complete and replaces the old one."""
    if "name" in over:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flatten(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{where}{key}."))
        else:
            flat[f"{where}{key}"] = value
    return flat
