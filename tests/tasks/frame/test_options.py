"""Options as records: what the parser is told, what is read, and the names in the sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from jiio.checks import JiioError
from jiio.tasks.classify.options import AttackOptions, ImageOptions, ModelOptions
from jiio.tasks.cli import as_mapping
from jiio.tasks.commands.evaluate import EvaluateOptions
from jiio.tasks.commands.train import TrainOptions
from jiio.tasks.demo.options import DemoOptions
from jiio.tasks.frame.options import MOST_SEED, check_seed, check_threads, chosen, declare, explained, keys_of, left
from jiio.tasks.generate.fit.options import FitOptions
from jiio.tasks.language.commands import PromptOptions, WriteOptions
from jiio.tasks.restore.compare.command import CompareOptions
from jiio.tasks.restore.photos.options import RestoreOptions

RECORDS = (
    *(
        AttackOptions,
        ImageOptions,
        ModelOptions,
        EvaluateOptions,
        TrainOptions,
        FitOptions,
        PromptOptions,
        WriteOptions,
    ),
    *(CompareOptions, DemoOptions, RestoreOptions),
)


@dataclass(frozen=True)
class Options:
    """For example.

    Args:
        words: several words,
            told on two lines: with a colon
        much: how much
        two_words: with a hyphen
        aim: must be named
        there: a place
        some: numbers
        deep: a choice
    """

    words: tuple[str, ...]
    much: float | None = None
    two_words: bool = False
    aim: str = field(kw_only=True)
    there: Path = Path("here")
    some: tuple[int, ...] = ()
    deep: Mapping[str, Any] = keys_of("jiio.tasks.frame.choices:Choice")


def read(*argv: str) -> Options:
    parser = ArgumentParser(exit_on_error=False)
    declare(parser, Options)
    return chosen(Options, as_mapping(parser.parse_args(list(argv), defaults=False)))


def test_a_record_from_a_command_line():
    assert read("a", "b", "--aim", "x") == Options(("a", "b"), aim="x")
    found = read("a", "--aim", "x", "--much", "2", "--two-words", "--there", "q", "--some", "1", "2")
    assert found == Options(("a",), 2.0, True, aim="x", there=Path("q"), some=(1, 2))
    assert read("a", "--aim", "x", "--deep.name", "KKT").deep["name"] == "KKT"


def test_the_help_is_the_docstring_and_the_default():
    parser = ArgumentParser(exit_on_error=False)
    declare(parser, Options)
    text = " ".join(parser.format_help().split())
    assert "several words, told on two lines: with a colon" in text and "default: here" in text


@pytest.mark.parametrize("word", ["", "a\0b"])
def test_a_name_that_is_none(word):
    with pytest.raises(JiioError, match=r"^--there: expected the name of a file or a folder"):
        read("a", "--aim", "x", "--there", word)


def test_what_is_left_is_of_the_configuration():
    assert left(Options, {"aim": "x", "steps": 3}) == {"steps": 3}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_option_is_explained_once(record):
    assert list(explained(record)) == [one.name for one in dataclasses.fields(record)]


def test_numbers_that_no_machine_has():
    check_threads(None)
    check_threads(1024)
    check_seed(MOST_SEED)
    for check, value in ((check_threads, 1025), (check_threads, 0), (check_seed, MOST_SEED + 1), (check_seed, -1)):
        with pytest.raises(JiioError, match=r"^--"):
            check(value)
