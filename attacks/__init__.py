"""Adversarial evaluation of equilibrium networks; imports jiio, and is imported by tasks.

What a configuration or a command line may name stands here in plain data, as in the rooms of tasks. Nothing is loaded
before it is used: the first name that needs it loads PyTorch.
"""

import ast as _ast
import importlib as _importlib
from pathlib import Path as _Path
from typing import Any as _Any

# name -> module, from the stub beside this file, which says the same to type checkers and editors.
_STUB = _ast.parse(_Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOME = {a.name: n.module for n in _STUB.body if isinstance(n, _ast.ImportFrom) and n.module for a in n.names}

ATTACKS = {name: f"jiio.attacks:{name}" for name, home in _HOME.items() if home.startswith("methods.")}
KINDS = {"attack": ".base:AbstractAttack"}
CHOICES = {"attack": ATTACKS}
SUITE_NAMES = ("standard", "autoattack", "deq")
__all__ = ["ATTACKS", *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> _Any:
    """A public name or a module of this package, loaded on first use."""
    if name in _HOME:
        value = getattr(_importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    whole = f"{__name__}.{name}"
    if not name.startswith("_"):
        try:
            return _importlib.import_module(whole)
        except ModuleNotFoundError as error:
            if error.name != whole:  # it is there, and something that it needs is not
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
