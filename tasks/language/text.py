"""Texts as numbers: corpora, vocabularies, and segments that are pure functions of (seed, step).

``python-docs`` is the reference of the Python language that the standard library ships for ``help()``, so it needs
nothing. The corpora are looked for in the folder that ``--data-root`` or JIIO_DATA names; any UTF-8 file is file:PATH.
"""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import check_choice, check_integer, check_number, describe, fail
from jiio.outputs.seeds import generator
from jiio.outputs.shares import rows
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.files import InputError, read_bytes
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.images.sources import find_data

MAX_TEXT_BYTES = 1 << 30
UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
WIKITEXT = ("wikitext-2", "wikitext-103")
# family -> (training file, validation file, test file) under the data root
CORPORA = {
    "ptb": ("text/ptb/ptb.train.txt", "text/ptb/ptb.valid.txt", "text/ptb/ptb.test.txt"),
    **{name: tuple(f"text/{name}/wiki.{part}.tokens" for part in ("train", "valid", "test")) for name in WIKITEXT},
}
# family -> one file, whose end is kept for validation and testing
SINGLE = {"shakespeare": "text/tinyshakespeare/input.txt"}
FAMILIES = ("python-docs", *CORPORA, *SINGLE)


@dataclass(frozen=True)
class TextConfig:
    """Texts.

    Args:
        family: python-docs, ptb, wikitext-2, wikitext-103, shakespeare, or file:PATH
        unit: words (what stands between spaces, and line ends) or characters
        vocabulary: the most frequent so many words or characters are known, the others are <unk>
        segment: tokens per segment
        segments: consecutive segments per training step; the first has no memory
        batch_size: texts per training step
        held_out: of a single file, the share at its end for validation, and as much again for testing
        train_limit: use only the first so many training tokens
        valid_limit: use only the first so many validation or test tokens
        part: what is measured, valid or test
        streams: texts side by side when measuring, each with a memory of its own
    """

    family: str = "python-docs"
    unit: str = "characters"
    vocabulary: int = 10_000
    segment: int = 64
    segments: int = 2
    batch_size: int = 16
    held_out: float = 0.05
    train_limit: int | None = None
    valid_limit: int | None = None
    part: str = "valid"
    streams: int = 8

    def __post_init__(self) -> None:
        if not self.family.startswith("file:") and self.family not in FAMILIES:
            remedy = nearest(self.family, (*FAMILIES, "file:PATH"))
            fail("data.family", "a family of texts", describe(self.family), remedy, ConfigError)
        check_choice("data.unit", self.unit, ("words", "characters"))
        check_choice("data.part", self.part, ("valid", "test"))
        sizes = {"vocabulary": (2, 10_000_000), "segment": (1, 65_536), "segments": (1, 1024)}
        for name, (low, high) in (sizes | {"batch_size": (1, 65_536), "streams": (1, 65_536)}).items():
            whole(f"data.{name}", getattr(self, name), low, high)
        check_number("data.held_out", self.held_out, 0.0, 0.4, open_low=True)
        for name in ("train_limit", "valid_limit"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 2)


@dataclass(frozen=True)
class Vocabulary:
    """Numbers for words or characters.

    Args:
        unit: words or characters
        entries: the token of every number, the frequent ones first
    """

    unit: str
    entries: tuple[str, ...]

    @classmethod
    def of(cls, text: str, unit: str, limit: int) -> Vocabulary:
        """Of a text: its most frequent tokens, and <unk>."""
        counts = collections.Counter(tokens_of(text, unit))
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        if UNKNOWN not in counts or UNKNOWN not in ranked[:limit]:
            ranked = [*ranked[: limit - 1], UNKNOWN]
        return cls(unit, tuple(ranked[:limit]))

    def encode(self, text: str) -> Tensor:
        """(n,) int64; what is not known becomes <unk>."""
        numbers = {token: i for i, token in enumerate(self.entries)}
        unknown = numbers[UNKNOWN]
        return torch.tensor([numbers.get(token, unknown) for token in tokens_of(text, self.unit)], dtype=torch.int64)

    def unknown(self, text: str) -> list[str]:
        """The tokens of a text that are not known, each once."""
        known = set(self.entries)
        return sorted({token for token in tokens_of(text, self.unit) if token not in known})

    def decode(self, numbers: list[int]) -> str:
        """The text of these tokens."""
        tokens = [self.entries[number] for number in numbers]
        if self.unit == "characters":
            return "".join(tokens)
        return " ".join("\n" if token == END_OF_LINE else token for token in tokens).replace(" \n ", "\n")

    def packed(self) -> Tensor:
        """As bytes in a tensor, so that it lies in a checkpoint beside the weights that mean nothing without it."""
        text = json.dumps({"unit": self.unit, "entries": self.entries}, ensure_ascii=False)
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    @classmethod
    def unpacked(cls, packed: Tensor) -> Vocabulary:
        """From :meth:`packed`. Errors: InputError where it is something else."""
        try:
            found = json.loads(bytes(packed.tolist()).decode())
            entries = tuple(str(entry) for entry in found["entries"])
            made = cls(check_choice("unit", found["unit"], ("words", "characters")), entries)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("checkpoint: its vocabulary cannot be read. Train again.") from error
        if UNKNOWN not in entries or len(set(entries)) < len(entries):
            raise InputError("checkpoint: its vocabulary lacks <unk> or has an entry twice. Train again.")
        return made


def tokens_of(text: str, unit: str) -> list[str]:
    """Characters, or the words between spaces with an <eos> at every end of a line."""
    if unit == "characters":
        return list(text)
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [token for line in lines for token in (*line.split(), END_OF_LINE)]


def load_text(config: TextConfig, *, data_root: Path | None = None) -> tuple[str, str]:
    """The training text and the one that is measured on, ``config.part``.

    Errors: InputError where a file is missing, too large or not UTF-8.
    """
    if config.family in CORPORA:
        named = f"the text {config.family}"
        train, valid, test = (find_data(data_root, path, named) for path in CORPORA[config.family])
        return read(train), read(valid if config.part == "valid" else test)

    text = single_text(config.family, data_root)
    kept = int(config.held_out * len(text))
    first, second = len(text) - 2 * kept, len(text) - kept
    return text[:first], text[first:second] if config.part == "valid" else text[second:]


def single_text(family: str, data_root: Path | None) -> str:
    """A text that is one piece: an installed one, a file under the data root, or file:PATH."""
    if family in SINGLE:
        return read(find_data(data_root, SINGLE[family], f"the text {family}"))
    if family == "python-docs":
        from pydoc_data import topics

        return "\n\n".join(entry for _, entry in sorted(topics.topics.items()))
    return read(Path(family.removeprefix("file:")))


def read(path: Path) -> str:
    """A UTF-8 file."""
    try:
        return read_bytes("data.family", path, "a text", MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        fail("data.family", "a text in UTF-8", f"{path}, which is not", "Convert it first.", InputError)


def draw_texts(tokens: Tensor, config: TextConfig, *, seed: int, step: int) -> Tensor:
    """(batch_size, segments * segment + 1): pieces from random places, a pure function of (seed, step)."""
    length = config.segments * config.segment + 1
    starts = torch.randint(len(tokens) - length + 1, (config.batch_size,), generator=generator(seed, "text", step))
    return tokens[starts[rows(config.batch_size), None] + torch.arange(length)]


def lay_out(tokens: Tensor, streams: int) -> Tensor:
    """(streams, n): a text cut into equal pieces that are read side by side; the rest at the end is left out."""
    length = len(tokens) // streams
    return tokens[: streams * length].view(streams, length)
