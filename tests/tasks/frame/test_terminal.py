"""Lines for a terminal: odd names, odd encodings, closed and full streams."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from jiio.tasks.frame.terminal import LONGEST_SENTENCE, plain, say, sentence, streams

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u65e5\u672c \U0001f600", "caf\u00e9 \u65e5\u672c \U0001f600"),
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("new\nline\ttab\rcr", r"new\nline\ttab\rcr"),
        ("\u202egnp.png", r"\u202egnp.png"),
        ("\udcff.png", r"\xff.png"),
        ("\ud800", r"\ud800"),
        ("\u2028\x9b", r"\u2028\x9b"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert plain(text) == shown


def test_a_sentence_is_one_line_of_bearable_length():
    assert sentence("a\n b\t c.") == "a b c."
    long = sentence(f"--json: expected a file, got {'x' * 30_000}, which is none.")
    assert len(long) < 300 and long.startswith("--json: expected a file, got xxx") and long.endswith("which is none.")
    assert len(sentence("ab " * 30_000)) <= LONGEST_SENTENCE


def test_streams_that_are_closed_or_know_few_letters(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    with streams():
        say("nobody hears it")
        say("caf\u00e9", sys.stdout)
        print("\udcff")
    assert sys.stderr is None and stream.errors == "strict"
    stream.flush()
    assert stream.buffer.getvalue() == b"caf\\xe9\n\\udcff\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--version >&-", 0, ""),
        ("nonsense 2>&-", 2, ""),
        ("--version > /dev/full", 2, "jiio: output: No space left on device.\n"),
        ("'\udcff\u00e9' ", 2, "no such command"),
    ],
)
def test_from_a_shell(line, code, said):
    call = f"exec {sys.executable} -c 'import sys; from jiio.tasks.cli import main; sys.exit(main())' {line}"
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["sh", "-c", call], capture_output=True, env=environment, timeout=300)
    errors = done.stderr.decode()
    assert done.returncode == code and said in errors and "Traceback" not in errors and "Exception" not in errors
    assert said or errors == ""
