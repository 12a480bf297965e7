"""The parts of what builds the documentation site, which stand in a folder of their own and know each other by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "docs" / "site"


def part(name: str) -> ModuleType:
    """A module of docs/site."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(name)
