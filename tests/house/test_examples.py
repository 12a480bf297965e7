"""The short examples of the reference: every block runs by itself, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parts_of_site import part

BLOCKS = [
    pytest.param(f"{package}: {title}", code, id=f"{package}-{title}-{number}".replace(" ", "-"))
    for (package, title), blocks in part("examples").of_groups().items()
    for number, code in enumerate(blocks)
]


@pytest.mark.parametrize(("head", "code"), BLOCKS)
def test_an_example_runs(head: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(code, head, "exec", dont_inherit=True), {"__name__": "docs"})
    assert len(code.strip().split("\n")) <= 45, "short ones"
