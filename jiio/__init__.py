"""jiio: joint inference and input optimisation in deep equilibrium networks.

Nothing is loaded before it is used: ``import jiio`` costs milliseconds, the first name that needs it loads PyTorch.
"""

import ast as _ast
import importlib as _importlib
from pathlib import Path as _Path
from typing import Any as _Any

__version__ = "0.2.0"

# Public name -> module inside jiio, from the stub beside this file, which says the same to type checkers and editors.
_STUB = _ast.parse(_Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
HOMES = {a.name: n.module for n in _STUB.body if isinstance(n, _ast.ImportFrom) and n.module for a in n.names}
__all__ = sorted(HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

# What stands at this door for who asks by name, though it lives in a room above, which nothing in here imports.
UPSTAIRS = {"Restorer": "tasks"}


def __getattr__(name: str) -> _Any:
    """A public name, or a sub-package such as ``jiio.attacks``, loaded on first use."""
    if name in HOMES:
        value = getattr(_importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in UPSTAIRS:
        return getattr(_importlib.import_module(f"{__name__}.{UPSTAIRS[name]}"), name)
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
