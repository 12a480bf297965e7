"""Lines for a terminal: whatever a file is called, and whatever the terminal can show."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

LONGEST_WORD = 200  # letters; a longer name is shortened in a sentence
LONGEST_SENTENCE = 480
# Marks that turn the direction of writing can make one name look like another (Unicode TR 36, section 2.2).
TURNS = frozenset(chr(n) for n in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def plain(text: str) -> str:
    """The text with what a terminal would obey, or could not show, spelled out: ``\\n``, ``\\x1b``, ``\\u202e``."""
    return "".join(spelled(letter) for letter in text)


def spelled(letter: str) -> str:
    """One letter, escaped where it is none that is shown."""
    if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") and letter not in TURNS:
        return letter
    if "\udc80" <= letter <= "\udcff":  # a byte of a name that is not UTF-8, as Python keeps it (PEP 383)
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def sentence(text: str) -> str:
    """One line for a person: blanks made one, names of thousands of letters shortened, the rest of it readable."""
    words = (cut(word, LONGEST_WORD) for word in text.split())
    return cut(plain(" ".join(words)), LONGEST_SENTENCE)


def cut(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than ``most``."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 5]} ... {text[-tail:]}"


def say(line: str, stream: Any = None) -> None:
    """A line of news, on standard error unless told otherwise; a bar of tqdm on the terminal stays whole."""
    stream = sys.stderr if stream is None else stream
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print(plain(line), file=stream, flush=True)
    else:
        tqdm.tqdm.write(plain(line), file=stream)
        stream.flush()


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Within, both streams exist and take every letter: closed ones lead nowhere, and what the encoding of a terminal
    lacks is spelled out.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # Python found the descriptor closed
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, nowhere)
                stack.callback(setattr, sys, name, None)
            elif hasattr(stream, "reconfigure"):
                before = stream.errors
                stream.reconfigure(errors="backslashreplace")
                stack.callback(restored, stream, before)
        yield


def restored(stream: Any, errors: str) -> None:
    """Give a stream its handling of errors back; a full or broken one cannot take that any more."""
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def abandon(stream: Any) -> None:
    """Let what is still in the buffer of a broken stream go nowhere, or Python complains of it once more at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
