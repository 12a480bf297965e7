"""The README is one screen, and its commands stand where `.ci/run` looks for them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_one_screen() -> None:
    assert len(TEXT.splitlines()) <= 80
    assert max(map(len, TEXT.splitlines())) <= 120


def test_it_has_two_commands_that_begin_with_an_environment() -> None:
    commands = re.findall(r"^python -m venv .+$", TEXT, re.MULTILINE)
    assert [command.rpartition("&& ")[2] for command in commands] == [
        ".venv/bin/jiio demo",
        ".venv/bin/python -m pytest",
    ]


def test_beside_every_picture_stands_the_command_that_made_it() -> None:
    pictures = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)\n\n<sub>[^`\n]*`([^`]+)`.*</sub>$", TEXT, re.MULTILINE)
    assert [path for path, _ in pictures] == re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures and all((ROOT / path).exists() for path, _ in pictures)
    assert all(command.startswith(("jiio ", "python ")) for _, command in pictures)
