"""The docstrings of the house as reStructuredText.

They are plain text for people: a summary, ``name: what it is`` under ``Args:``, sentences behind ``Returns:`` and
``Errors:``, equations set in from the margin, |x| for a norm. Sphinx would take bars, stars and set-in lines for markup
of its own, so they are told apart here: what is set in becomes a literal block, everything else is escaped but for
literals in double backticks and references such as :func:`jiio.solve`. Arguments that are told one after the other in a
paragraph, ``low: the least value. high: the largest.``, become a list.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

KEPT = re.compile(r"``.+?``|:\w+:`[^`]+`")  # literals and references
BARE = re.compile(r"`([^`]+)`")
SECTION = re.compile(r"^(Args|Returns|Errors|Raises|Yields):\s*(.*)$")
STARTS = re.compile(r"(?:^|(?<=\. ))(\w+(?:, (?:and )?\w+)*): ")
ENTRY = re.compile(r"^(\*{0,2}\w[\w, *]*?):\s+(.*)$")
WORDS = {"Args": "Parameters", "Raises": "Errors"}


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's door."""
    app.connect("autodoc-process-docstring", process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring in place."""
    names = arguments(thing)
    lines[:] = [line for part in paragraphs(lines) for line in (*shown(part, names), "")]


def arguments(thing: Any) -> list[str]:
    """The names of the arguments of something that can be called."""
    try:
        return list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return []


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines of one kind: a section, lines that are set in, or plain text."""
    part: list[str] = []
    for line in lines:
        if part and ends(part, line):
            yield part
            part = []
        if line.strip():
            part.append(line.rstrip())
    if part:
        yield part


def ends(part: list[str], line: str) -> bool:
    """Whether a line no longer belongs to what was gathered."""
    if not line.strip():
        return not (SECTION.match(part[0]) and part[0].startswith("Args"))
    if SECTION.match(line):
        return True
    listed = SECTION.match(part[0]) and part[0].startswith("Args")
    return is_set_in(part[-1]) != is_set_in(line) if not listed else not is_set_in(line)


def is_set_in(line: str) -> bool:
    return line.startswith("    ")


def shown(part: list[str], names: list[str]) -> Iterator[str]:
    """A paragraph as reStructuredText; names: of the arguments of what it is about."""
    section = SECTION.match(part[0])
    if section:
        yield from titled(WORDS.get(section[1], section[1]), section[2], part[1:])
    elif part[0].startswith(">>>"):
        yield from part
    elif is_set_in(part[0]):
        yield from ("::", "", *part)
    else:
        yield from told(" ".join(line.strip() for line in part), names)


def told(text: str, names: list[str]) -> Iterator[str]:
    """A paragraph in which arguments may be told one after the other."""
    lead, entries = split(text, names)
    if lead:
        yield escaped(lead)
        yield ""
    yield from (listed(heads, said) for heads, said in entries)


def split(text: str, names: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """A paragraph in two: what comes first, and an entry (arguments, what they are) for all that are told after it."""
    starts = [m for m in STARTS.finditer(text) if set(heads_of(m[1])) <= set(names)]
    ends = [m.start() for m in starts[1:]] + [len(text)]
    lead = text[: starts[0].start()] if starts else text
    return lead.strip(), [(m[1], text[m.end() : end].strip()) for m, end in zip(starts, ends, strict=False)]


def heads_of(text: str) -> list[str]:
    """The names before the colon of an entry."""
    return [name.strip("* ") for name in re.split(r",? and |,", text)]


def listed(heads: str, said: str) -> str:
    """An entry as a line of a list."""
    return f"- ``{heads}``: {escaped(said)}"


def entries(lines: list[str], names: list[str]) -> dict[str, str]:
    """Argument -> what a docstring tells of it, in a section ``Args:`` or one after the other."""
    found: dict[str, str] = {}
    for part in paragraphs(lines):
        section = SECTION.match(part[0])
        if section:
            pairs = list(entries_of(part[1:])) if section[1] == "Args" else []
        else:
            pairs = split(" ".join(line.strip() for line in part), names)[1]
        found |= {name: said for heads, said in pairs for name in heads_of(heads) if name in names}
    return found


def titled(title: str, first: str, others: list[str]) -> Iterator[str]:
    """A section: its word, then a line for each entry, or the sentence that follows it."""
    entries = list(entries_of(others)) if not first else []
    if not entries:
        yield f"**{title}.** {escaped(' '.join([first, *(line.strip() for line in others)]).strip())}"
        return
    yield f"**{title}**"
    yield ""
    yield from (listed(names, text) for names, text in entries)


def entries_of(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(names, what they are), continued lines joined; nothing where the lines are no list of names."""
    found: list[list[str]] = []
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    for line in lines:
        entry = ENTRY.match(line[margin:])
        if entry:
            found.append([entry[1], entry[2]])
        elif found:
            found[-1][1] += f" {line.strip()}"
        else:
            return
    yield from ((names, text) for names, text in found)


def escaped(text: str) -> str:
    """Plain text in which nothing is markup but literals and references."""
    parts, end = [], 0
    for kept in KEPT.finditer(text):
        parts += [plain(text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*parts, plain(text[end:])])


def plain(text: str) -> str:
    """Text without any literal in double backticks; a name in single ones is shown as one."""
    done, end = [], 0
    for bare in BARE.finditer(text):
        done += [re.sub(r"([\\*|`_])", r"\\\1", text[end : bare.start()]), f"``{bare[1]}``"]
        end = bare.end()
    return "".join([*done, re.sub(r"([\\*|`_])", r"\\\1", text[end:])])
