"""Checkpoints on the Hugging Face hub: ``hub:OWNER/NAME``, or ``hub:OWNER/NAME@REVISION``, wherever weights are named.

A repository holds ``weights.safetensors``, a file like that of a training, and a card. What is fetched is read as any
file of a stranger: no pickle, no code but what the reader names too. The library huggingface_hub does the talking; it
comes with the extra ``hub`` and is imported when it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jiio.checks import JiioError, fail

from .files import InputError, reason
from .place import WEIGHTS

PREFIX = "hub:"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
REVISION = re.compile(r"\w[\w./-]*", re.ASCII)
ONLINE = "Is there a network?"
LOG_IN = "Log in by `hf auth login`, or set HF_TOKEN."


@dataclass(frozen=True)
class Address:
    """A repository of the hub. revision: a branch, a tag or a commit; None is the newest of its main branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def of(cls, argument: str, word: str) -> Address:
        """OWNER/NAME, or OWNER/NAME@REVISION, with or without ``hub:`` before it. Errors: InputError."""
        if not isinstance(word, str):
            fail(argument, "OWNER/NAME or OWNER/NAME@REVISION of the hub", word, error=InputError)
        repository, at, revision = word.removeprefix(PREFIX).partition("@")
        if not NAME.fullmatch(repository) or (at and not REVISION.fullmatch(revision)):
            fail(argument, "OWNER/NAME or OWNER/NAME@REVISION of the hub", repr(word), error=InputError)
        return cls(repository, revision or None)

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def fetched(argument: str, word: str) -> Path:
    """The weights at an address, in the cache of huggingface_hub, which asks the hub whether there are newer ones.

    Errors: InputError, one sentence.
    """
    address = Address.of(argument, word)
    hub = library(argument)
    with talking(argument, address):
        return Path(hub.hf_hub_download(address.repository, WEIGHTS, revision=address.revision))


def library(argument: str) -> Any:
    """The package huggingface_hub. Errors: InputError where it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(f"{argument}: the hub needs the extra 'hub' ({error}). pip install 'jiio[hub]'") from error


@contextlib.contextmanager
def talking(argument: str, address: Address) -> Iterator[None]:
    """What the hub answers, as a sentence about the repository."""
    try:
        yield
    except JiioError:
        raise
    except Exception as error:
        for kinds, expected, came, remedy in _refusals():
            if isinstance(error, kinds):
                told = came.format(why=reason(error)[:160], revision=repr(address.revision))
                raise InputError(f"{argument}: {address}: expected {expected}, got {told}. {remedy}".strip()) from error
        raise


def _refusals() -> list[tuple[Any, str, str, str]]:
    """From the particular to the general, the errors of the library with what was expected, what came, and a remedy."""
    of: Any = importlib.import_module("huggingface_hub.errors")
    network = (*of.HfHubHTTPError.__bases__, OSError)  # the errors of whatever package it speaks HTTP by
    return [
        (of.LocalEntryNotFoundError, "the hub to answer, or a copy of an earlier download", "neither", ONLINE),
        (of.OfflineModeIsEnabled, "the hub to be asked", "HF_HUB_OFFLINE, which forbids it", "Unset it."),
        (of.HFValidationError, "a name that the hub allows", "another ({why})", ""),
        (of.GatedRepoError, "a repository that is open to you", "one whose owner wants to be asked", LOG_IN),
        (of.RepositoryNotFoundError, "a repository", "none of that name, or a private one", LOG_IN),
        (of.RevisionNotFoundError, "a branch, a tag or a commit of it", "{revision}", ""),
        (of.EntryNotFoundError, f"a repository with {WEIGHTS}", "one without", "`jiio push` puts them there."),
        (of.LocalTokenNotFoundError, "somebody who has logged in", "nobody", LOG_IN),
        (of.HfHubHTTPError, "a request that the hub allows", "a refusal ({why})", LOG_IN),
        (network, "the hub to answer", "nothing ({why})", ONLINE),
    ]
