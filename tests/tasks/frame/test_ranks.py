"""Several processes as a launcher starts them: what the environment may say, and one training by two of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jiio.checks import JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame import ranks
from jiio.tasks.frame.dealing import dealing, dealt
from jiio.tasks.frame.machine import check_device, named_device
from jiio.tasks.frame.post import Post
from jiio.tasks.frame.ranks import RankError, Ranks, choose_device, joined
from rank_cases import apart, begin, chained, said, write_recipe

THERE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("values", "post"),
    [
        ({}, Post()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, Post()),
        (THERE, Post(1, 4, 1)),
        ({**THERE, "RANK": "3", "LOCAL_RANK": "1"}, Post(3, 4, 1)),
        ({name: word for name, word in THERE.items() if name != "LOCAL_RANK"}, Post(1, 4, 1)),
    ],
)
def test_the_environment_says_which_process_this_is(values: dict[str, str], post: Post) -> None:
    assert Post.of(values) == post
    assert post.leads == (post.index == 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE: expected a whole number, got 'four'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: expected a number of processes, at least 1, got 0"),
        ({"RANK": None}, "RANK: expected the number of this process beside WORLD_SIZE=4, got none"),
        ({"RANK": "4"}, "RANK: expected a number from 0 to 3 beside WORLD_SIZE=4, got 4. Start it by: torchrun"),
        ({"RANK": "-1"}, "RANK: expected a number from 0 to 3"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: expected the address of rank 0 beside WORLD_SIZE=4, got none"),
        ({"MASTER_PORT": ""}, "MASTER_PORT: expected a free port there"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK: expected a whole number"),
    ],
)
def test_an_environment_that_makes_no_sense_is_a_sentence(changes: dict[str, str | None], words: str) -> None:
    values = {name: word for name, word in (THERE | changes).items() if word is not None}
    with pytest.raises(JiioError, match=words):
        Post.of(values)


def test_a_training_without_the_others_ends_in_a_sentence(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(write_recipe("restore", tmp_path, 3))]) == 2
    assert "MASTER_ADDR: expected the address of rank 0" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"MASTER_ADDR": "no-such-node.invalid"},
            "MASTER_ADDR: expected an address of rank 0 that this",
        ),
        ({"MASTER_ADDR": "node..1"}, "MASTER_ADDR: expected an address of rank 0 that this"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT: expected a port from 1 to 65535, got 70000"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT: expected a whole number, got 'http'"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_before_anybody_waits(changes: dict[str, str], words: str, monkeypatch):
    for name, word in ({**THERE, "MASTER_ADDR": "127.0.0.1"} | changes).items():
        monkeypatch.setenv(name, word)
    with pytest.raises(JiioError, match=words), joined("cpu"):
        raise AssertionError("nobody has joined")


def test_auto_is_what_every_rank_finds(monkeypatch) -> None:
    """Without a GPU the ranks of `auto` meet on their CPUs; with one each has that of its number."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert named_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert named_device("auto") == "cuda" and named_device("cuda:1") == "cuda:1"
    for name, word in THERE.items():
        monkeypatch.setenv(name, word)
    made: list[str] = []
    monkeypatch.setattr(torch, "empty", lambda n, device: made.append(str(device)))
    assert str(check_device("cuda")) == "cuda:1" and str(check_device("cpu")) == "cpu" and made == ["cuda:1", "cpu"]


@pytest.mark.parametrize(
    ("device", "local", "words"),
    [
        ("cuda:1", 0, "device: expected cpu or cuda with 2 processes, got 'cuda:1'"),
        ("mps", 0, "device: expected cpu or cuda with 2 processes"),
        ("cuda", 3, "LOCAL_RANK: expected fewer ranks than the 3 GPUs of this machine, got 3"),
    ],
)
def test_every_rank_has_a_gpu_of_its_own_or_is_refused(device: str, local: int, words: str, monkeypatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    with pytest.raises(JiioError, match=words):
        choose_device(device, Post(1, 2, local))
    choose_device("cpu", Post(1, 2, 7))
    assert taken == []
    choose_device("cuda", Post(1, 2, 2))
    assert taken == [2]


def test_one_process_waits_for_nobody() -> None:
    alone, value = Ranks(), torch.ones(3)
    assert alone.sum(value) is value and alone.told("word") == "word" and alone.gathered(2) == [2]
    assert alone.first(lambda: 5) == 5 and alone.agreed(None) is None and alone.agreed(130) == 130
    with joined("cpu") as found:
        assert found == alone


def test_work_is_dealt_out_in_order(monkeypatch) -> None:
    """Three ranks, one after the other in this process: what the others did comes from a list."""
    did: list[dict[int, str]] = []

    class Third(Ranks):
        def gathered(self, value):
            did.append(value)
            return list(did)

    assert dealt("abcdefg", str.upper) == list("ABCDEFG")
    for index in range(3):
        with dealing(Third(Post(index, 3))):
            found = dealt(iter("abcdefg"), str.upper)
    assert found == list("ABCDEFG")
    assert [sorted(part) for part in did] == [[0, 3, 6], [1, 4], [2, 5]]
    assert dealt("ab", str.upper) == ["A", "B"]


def test_what_goes_wrong_between_processes_is_a_sentence() -> None:
    told = (
        r"rank 1 of 3: another process of this run has ended, or cannot be reached \(Connection reset by peer\)\. What"
    )
    with pytest.raises(RankError, match=told), Ranks(Post(1, 3)).talking():
        raise RuntimeError("[/build/gloo/pair.cc:561] Connection reset by peer. Check the logs of the remote worker.")
    assert ranks.PATIENCE.total_seconds() <= 600


def test_two_processes_train_as_one(tmp_path: Path, monkeypatch) -> None:
    """Two gloo ranks; then they go on for a step, and measure. One process does the same."""
    write_recipe("generate", tmp_path, 2, every=1)
    train = ["train", "generate.yaml", "--data.size", "11", "--inference.options", '{"max_steps": 6}']

    def commands(name: str) -> list[list[str]]:
        more = ["train", name, "--resume", "--steps", "3"]
        return [[*train, "--output", name], more, ["evaluate", name, "--json", f"{name}.json"]]

    monkeypatch.chdir(tmp_path)
    with begin(2, chained(commands("two")), tmp_path) as started:
        assert [main(command) for command in commands("one")] == [0, 0, 0]
        assert started.finish(120) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)

    assert apart(Path("one/weights.safetensors"), Path("two/weights.safetensors")) < 2e-5
    steps = [json.loads(line)["step"] for line in Path("two/log.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2]
    assert "Trained 3 steps" in said(tmp_path, 0) and "Trained" not in said(tmp_path, 1)
    one, two = (json.loads(Path(name).read_text())["rows"] for name in ("one.json", "two.json"))
    for a, b in zip(one, two, strict=True):
        assert a.pop("images") == b.pop("images")
        assert a == pytest.approx(b, rel=1e-2, abs=1e-2, nan_ok=True)
