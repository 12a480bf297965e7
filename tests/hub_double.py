"""A stand-in for the package huggingface_hub: repositories are folders, and what goes wrong is what it would raise."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest


class HTTPError(Exception):
    """Of the package that it speaks HTTP by."""


class HfHubHTTPError(HTTPError, OSError): ...


class RepositoryNotFoundError(HfHubHTTPError): ...


class GatedRepoError(RepositoryNotFoundError): ...


class RevisionNotFoundError(HfHubHTTPError): ...


class EntryNotFoundError(Exception): ...


class LocalEntryNotFoundError(FileNotFoundError, EntryNotFoundError): ...


class LocalTokenNotFoundError(EnvironmentError): ...


class OfflineModeIsEnabled(ConnectionError): ...


class HFValidationError(ValueError): ...


ERRORS = {kind.__name__: kind for kind in (HTTPError, HfHubHTTPError, RepositoryNotFoundError, GatedRepoError)}
ERRORS |= {kind.__name__: kind for kind in (RevisionNotFoundError, EntryNotFoundError, LocalEntryNotFoundError)}
ERRORS |= {kind.__name__: kind for kind in (LocalTokenNotFoundError, OfflineModeIsEnabled, HFValidationError)}


class Hub:
    """Repositories in a folder, each branch a folder of its own; what was asked; and what is raised instead."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        self.fails: Exception | None = None
        self.private: dict[str, bool | None] = {}

    def place(self, repository: str, revision: str | None) -> Path:
        return self.folder / repository / (revision or "main")

    def ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails

    # The functions of the package that are used, with the names that its arguments have there.
    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None = None) -> str:
        self.ask("download", repo_id, revision)
        if not (self.folder / repo_id).exists():
            raise RepositoryNotFoundError("404")
        if not self.place(repo_id, revision).exists():
            raise RevisionNotFoundError("404")
        found = self.place(repo_id, revision) / filename
        if not found.exists():
            raise EntryNotFoundError("404")
        return str(found)

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> None:
        self.ask("create", repo_id)
        assert exist_ok
        self.private.setdefault(repo_id, private)
        self.place(repo_id, None).mkdir(parents=True, exist_ok=True)

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool = False) -> None:
        assert exist_ok
        shutil.copytree(self.place(repo_id, None), self.place(repo_id, branch), dirs_exist_ok=True)

    def file_exists(self, repo_id: str, filename: str, *, revision: str | None = None) -> bool:
        return (self.place(repo_id, revision) / filename).exists()

    def upload_folder(
        self, *, repo_id: str, folder_path: str, revision: str | None = None, commit_message: str | None = None
    ) -> object:
        self.ask("upload", repo_id, revision, commit_message)
        shutil.copytree(folder_path, self.place(repo_id, revision), dirs_exist_ok=True)
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def installed(patch: pytest.MonkeyPatch, folder: Path) -> Hub:
    """The stand-in, where the package would be."""
    hub = Hub(folder)
    module, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
    vars(module).update(hf_hub_download=hub.hf_hub_download, HfApi=lambda: hub, errors=errors)
    vars(errors).update(ERRORS)
    patch.setitem(sys.modules, "huggingface_hub", module)
    patch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return hub
