"""The tutorials: the notebooks are their scripts, and the scripts run in an empty folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
SPEC = importlib.util.spec_from_file_location("notebooks", FOLDER / "notebooks.py")
assert SPEC is not None and SPEC.loader is not None
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)
SCRIPTS = notebooks.scripts()
ASKS_FOR = {"my_torchdeq": "torchdeq"}  # tutorial -> a package that not everybody has


def test_there_are_six_and_the_page_lists_them() -> None:
    page = (ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8")
    told = re.findall(r"\(tutorials/(\w+)\.py\)", page)
    assert len(told) == 6 and sorted(told) == [script.stem for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_without_outputs(script: Path) -> None:
    kept = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert kept == notebooks.notebook(script.read_text(encoding="utf-8")), "run: python docs/tutorials/notebooks.py"
    content = json.loads(kept)
    assert content["nbformat"] == 4 and all(not cell.get("outputs") for cell in content["cells"])
    code = "\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    compile(code, script.name, "exec")
    assert "assert " in code  # it checks what it claims


def test_cells_are_told_apart() -> None:
    text = "# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\nx = 1  # one\n\n# %%\ny = 2\n"
    assert notebooks.cells(text) == [("markdown", "# Title\n\nWords."), ("code", "x = 1  # one"), ("code", "y = 2")]
    with pytest.raises(ValueError, match="begins with a cell"):
        notebooks.cells("x = 1\n# %%\n")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_tutorial_runs(script: Path, tmp_path: Path) -> None:
    """In a process of its own, as somebody would start it; warnings are errors here as everywhere."""
    if script.stem in ASKS_FOR:
        pytest.importorskip(ASKS_FOR[script.stem])
    path = os.pathsep.join([str(tmp_path), *([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])])
    where = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": path}}
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr[-2000:]
