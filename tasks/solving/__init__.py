"""Around a joint solve: its settings, networks and decoders, nested baselines, learnt starts."""

from pathlib import Path

import jiio


def public(home: str) -> dict[str, str]:
    """The classes that jiio offers from a module or a package of its own, by name; bases and functions left out."""
    names = (name for name, module in jiio.HOMES.items() if module.partition(".")[0] == home)
    return {name: f"jiio:{name}" for name in names if name[0].isupper() and not name.startswith("Abstract")}


# A cell's file carries its name: jiio/models/cells/dense.py holds DenseConfig.
FILES = (Path(jiio.__file__).parent / "models" / "cells").glob("[a-z]*.py")
NAMES = sorted(path.stem.capitalize() for path in FILES if path.stem != "base")
CELLS = {name: f"jiio.models:{name}Config" for name in NAMES}
KINDS = {
    "solver": "jiio:AbstractSolver",
    "rule": "jiio:AbstractRule",
    "adjoint": "jiio:AbstractAdjoint",
    "cell": "jiio.models:AbstractCellConfig",
    "network": "jiio.models:AbstractCellConfig",
}
CHOICES = {
    "solver": public("solvers"),
    "rule": public("rules"),
    "adjoint": {name: path for name, path in public("adjoints").items() if name != "Levenberg"},  # measures a damping
    "cell": CELLS,
    "network": {**CELLS, "Reference": ".networks:ReferenceConfig"},
}
