"""Make the notebooks of the tutorials from their scripts, without outputs.

    python docs/tutorials/notebooks.py

A tutorial is a script in cells: ``# %% [markdown]`` begins a cell of text, ``# %%`` one of code. The script is what is
kept, read in a review and run by the tests; the notebook beside it holds the same cells for those who want to click.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
BEGIN = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def scripts() -> list[Path]:
    """The tutorials."""
    return sorted(path for path in HERE.glob("*.py") if path != Path(__file__))


def cells(text: str) -> list[tuple[str, str]]:
    """(kind, source) of every cell; kind: "markdown" or "code"."""
    parts = BEGIN.split(text)
    if parts[0].strip():
        raise ValueError(f"expected a script that begins with a cell, got {parts[0][:40]!r}")
    found = []
    for mark, body in zip(parts[1::2], parts[2::2], strict=True):
        source = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if mark else body
        found.append(("markdown" if mark else "code", source.strip("\n")))
    return found


def notebook(text: str) -> str:
    """The script as a notebook of the format 4.5."""
    made = []
    for number, (kind, source) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def page(text: str, name: str) -> str:
    """The script as a page of Markdown, with a link to the notebook under its heading."""
    shown = [source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells(text)]
    head, _, rest = shown[0].partition("\n")
    return "\n\n".join([head, f"[The notebook](../tutorials/{name}.ipynb)", rest.strip(), *shown[1:]]) + "\n"


if __name__ == "__main__":
    for script in scripts():
        script.with_suffix(".ipynb").write_text(notebook(script.read_text(encoding="utf-8")), encoding="utf-8")
        print(script.with_suffix(".ipynb"))
