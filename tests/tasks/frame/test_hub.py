"""Checkpoints on the hub: pushed, named by ``hub:OWNER/NAME`` wherever weights are, and refused in sentences."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import hub_double
import toy
from hub_double import Hub
from jiio import tasks
from jiio.checks import CheckpointError, JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.hub import Address
from loop_cases import config_of, run
from rank_cases import environment


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)
    return hub_double.installed(monkeypatch, tmp_path / "hub")


@pytest.fixture
def trained() -> Path:
    """A folder whose name is nobody's business, with a moving average beside the weights."""
    run(config_of("mine/secret", steps=6, average=0.5))
    return Path("mine/secret")


def test_what_was_pushed_is_loaded_by_its_name(hub: Hub, trained: Path, capsys) -> None:
    assert main(["push", str(trained), "me/toy", "--private"]) == 0
    told = capsys.readouterr()
    assert told.out == "https://hub/me/toy/commit/1\n" and "Load it as hub:me/toy" in told.err
    assert hub.private == {"me/toy": True} and hub.asked[-1] == ("upload", "me/toy", None, "toy, 6 steps")

    # What deploying needs and no more: the averaged weights, under the names of the weights, and no folder of mine.
    here, there = load(trained), tasks.load("hub:me/toy")
    wanted = here.named("model.") | here.named("average.")
    assert there.named("model.").keys() == wanted.keys() and len(there.tensors) == len(wanted) < len(here.tensors)
    assert all(torch.equal(t, wanted[name]) for name, t in there.named("model.").items())
    assert not torch.equal(here.named("model.")["4.bias"], there.named("model.")["4.bias"])
    assert there.step == 6 and there.config.output == "runs/restore"
    assert all(b"secret" not in path.read_bytes() for path in Path("hub").rglob("*") if path.is_file())
    assert tasks.evaluate(there)[0]["squared error"] == tasks.evaluate(here)[0]["squared error"]


def test_the_command_line_reads_it_and_asks_the_hub_no_more_than_it_has_to(hub: Hub, trained: Path, capsys) -> None:
    tasks.push(load(trained), "me/toy@v1")
    hub.asked.clear()
    assert main(["evaluate", "hub:me/toy@v1", "--data.test_limit", "3"]) == 0  # the options are those of its task
    assert json.loads(capsys.readouterr().out)["step"] == 6
    assert {what[0] for what in hub.asked} == {"download"} and len(hub.asked) <= 2
    assert main(["train", "toy.yaml", "--steps", "4", "--start", "hub:me/toy@v1"]) == 0


def test_a_card_of_somebody_elses_stays(hub: Hub, trained: Path) -> None:
    checkpoint = load(trained)
    tasks.push(checkpoint, "me/toy", message="the first")
    card = Path("hub/me/toy/main/README.md")
    text = card.read_text()
    assert text.startswith("---\nlibrary_name: jiio\n") and 'tasks.load("hub:me/toy")' in text and "steps: 6" in text
    card.write_text("mine")
    tasks.push(checkpoint, "me/toy")
    assert card.read_text() == "mine" and hub.private == {"me/toy": False}


REFUSALS = [
    ("hub:me/toy", hub_double.LocalEntryNotFoundError("x"), "or a copy of an earlier download, got neither. Is there"),
    ("hub:me/toy", hub_double.OfflineModeIsEnabled("x"), "got HF_HUB_OFFLINE, which forbids it. Unset it."),
    ("hub:me/toy", hub_double.GatedRepoError("x"), "one whose owner wants to be asked. Log in by `hf auth login`"),
    ("hub:me/other", None, "me/other: expected a repository, got none of that name, or a private one. Log in"),
    ("hub:me/toy@v9", None, "me/toy@v9: expected a branch, a tag or a commit of it, got 'v9'."),
    ("hub:me/empty", None, "me/empty: expected a repository with weights.safetensors, got one without."),
    ("hub:me/toy", hub_double.HfHubHTTPError("503 is closed"), "a request that the hub allows, got a refusal (503 is"),
    ("hub:me/toy", hub_double.HTTPError("no route"), "expected the hub to answer, got nothing (no route). Is there a"),
    ("hub:me/toy", OSError("disk is full"), "expected the hub to answer, got nothing (disk is full)."),
    ("hub:me/a--b", hub_double.HFValidationError("no --"), "a name that the hub allows, got another (no --)."),
    ("hub:toy", None, "expected OWNER/NAME or OWNER/NAME@REVISION of the hub, got 'hub:toy'."),
    ("hub:me/toy@", None, "expected OWNER/NAME or OWNER/NAME@REVISION of the hub, got 'hub:me/toy@'."),
    ("hub:../../etc/x", None, "expected OWNER/NAME or OWNER/NAME@REVISION of the hub"),
]


@pytest.mark.parametrize(("word", "fails", "words"), REFUSALS)
def test_what_the_hub_refuses_is_a_sentence(word: str, fails: Exception | None, words: str, hub: Hub, capsys) -> None:
    for name in ("toy", "empty"):
        hub.place(f"me/{name}", None).mkdir(parents=True)
    hub.fails = fails
    assert main(["evaluate", word]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("jiio: CHECKPOINT: ") and words in told.err and len(told.err.splitlines()) == 1
    assert len(hub.asked) <= 1


def test_what_is_pushed_by_nobody_is_a_sentence(hub: Hub, trained: Path, capsys) -> None:
    hub.fails = hub_double.LocalTokenNotFoundError("no token")
    assert main(["push", str(trained), "me/toy"]) == 2
    assert "REPOSITORY: me/toy: expected somebody who has logged in, got nobody. Log in" in capsys.readouterr().err
    assert main(["push", str(trained), "toy"]) == 2
    assert "REPOSITORY: expected OWNER/NAME" in capsys.readouterr().err
    assert main(["push", "nothing", "me/toy"]) == 2 and not Path("hub").exists()


def test_an_error_that_is_no_answer_of_the_hub_is_not_hidden(hub: Hub) -> None:
    hub.fails = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        tasks.load("hub:me/toy")


def test_without_the_extra_a_sentence_says_how_to_get_it(monkeypatch, trained: Path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (["evaluate", "hub:me/toy"], ["push", str(trained), "me/toy"]):
        assert main(words) == 2
        assert "the hub needs the extra 'hub' (" in (said := capsys.readouterr().err) and "'jiio[hub]'" in said


def test_what_a_stranger_put_there_is_no_more_than_a_file(hub: Hub) -> None:
    hub.place("me/toy", None).mkdir(parents=True)
    (hub.place("me/toy", None) / "weights.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="a pickle"):
        tasks.load("hub:me/toy")


@pytest.mark.parametrize("word", ["a/b/c", "a b/c", "/c", "a/", "a/b@\n", "", "@v1", "../..", "a/..", "a/b@../c"])
def test_an_address_has_an_owner_and_a_name(word: str) -> None:
    with pytest.raises(JiioError, match="expected OWNER/NAME"):
        Address.of("hub", word)


# -- the package itself, where it is installed


def test_the_stand_in_takes_the_arguments_of_the_package() -> None:
    for name in ("huggingface_hub", "huggingface_hub.errors"):
        sys.modules.pop(name)  # the fixture brings it back
    real = pytest.importorskip("huggingface_hub")
    pairs = [(real.hf_hub_download, Hub.hf_hub_download)]
    pairs += [
        (getattr(real.HfApi, name), getattr(Hub, name))
        for name in ("create_repo", "create_branch", "file_exists", "upload_folder")
    ]
    for theirs, ours in pairs:
        taken = inspect.signature(theirs).parameters
        assert [name for name in inspect.signature(ours).parameters if name != "self" and name not in taken] == []


class Answers(BaseHTTPRequestHandler):
    """What the hub says of /OWNER/NAME/resolve/REVISION/weights.safetensors."""

    weights = b""

    def do_HEAD(self) -> None:
        _, _, name, _, revision, _ = self.path.split("/")
        refusal = {"gone": "RepoNotFound", "closed": "GatedRepo", "empty": "EntryNotFound"}.get(name)
        refusal = "RevisionNotFound" if revision == "v9" else refusal
        self.send_response(200 if refusal is None else {"GatedRepo": 403}.get(refusal, 404))
        if refusal is not None:
            self.send_header("X-Error-Code", refusal)
        length = len(self.weights) if refusal is None else 0
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1234"')
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.weights)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(trained: Path) -> Iterator[str]:
    Answers.weights = (trained / "weights.safetensors").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_the_package_says_what_the_stand_in_says(served: str, tmp_path: Path) -> None:
    for name in ("huggingface_hub", "huggingface_hub.errors"):
        sys.modules.pop(name)
    pytest.importorskip("huggingface_hub")
    around = environment(HF_ENDPOINT=served, HF_HOME=str(tmp_path / "cache"), HF_HUB_DISABLE_XET="1")
    around["PYTHONPATH"] += f":{':'.join(path for path in sys.path if path)}"

    def said(word: str) -> tuple[int, str]:
        words = [sys.executable, toy.__file__, "evaluate", word]
        done = subprocess.run(words, cwd=tmp_path, env=around, capture_output=True, text=True)
        return done.returncode, done.stderr

    code, told = said("hub:me/toy")
    assert code == 0 and "squared error" in told
    for word, sentence in (
        ("hub:me/gone", "got none of that name, or a private one. Log in"),
        ("hub:me/closed", "got one whose owner wants to be asked. Log in"),
        ("hub:me/empty", "expected a repository with weights.safetensors, got one without."),
        ("hub:me/toy@v9", "expected a branch, a tag or a commit of it, got 'v9'."),
    ):
        code, told = said(word)
        assert code == 2 and sentence in told and "Traceback" not in told, told


DOORS: Any = tasks  # as those see it who have no types


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda done: DOORS.push(3, "alice/faces"), "checkpoint: expected an instance of Checkpoint, got int 3"),
        (lambda done: DOORS.push(done, 3), "hub: expected OWNER/NAME"),
        (lambda done: DOORS.evaluate("faces"), "checkpoint: .* Read one by jiio.tasks.load"),
        (lambda done: DOORS.train({"steps": 1}), "config: expected an instance of RunConfig"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(trained: Path, call, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        call(load(trained))
