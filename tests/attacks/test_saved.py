"""The folder of an evaluation: whose it is, who holds it, what is damaged, and that a refusal leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import jiio
from attack_models import blobs, convolutional, equilibrium, undated
from jiio.attacks import PGD, Report, ThreatModel, evaluate
from jiio.attacks.evaluation.records import Entry
from jiio.attacks.evaluation.saved import saved
from jiio.outputs import lock

X, Y = blobs(24, seed=2)
BATCHES = [(X[:16], Y[:16]), (X[16:], Y[16:])]
ENTRY = Entry({"a": torch.arange(4.0), "b": torch.tensor([True, False])}, {"tally": {"PGD": 1}})


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(folder: Path | None = None, **options: Any) -> Report:
    settings: dict[str, Any] = {
        "model": convolutional(),
        "batches": BATCHES,
        "threat": ThreatModel("linf", 0.06),
        "attacks": [PGD(steps=2)],
        "generator": seeded(),
        "audit": None,
    }
    return evaluate(**(settings | options), state_path=folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    """Killed while the very first file was being written: the folder is neither empty nor that of an evaluation."""
    left = tmp_path / ".settings.json.123-0123abcd.jiio-part"
    left.write_bytes(b"{")
    assert undated(run(tmp_path)) == undated(run())
    assert not left.exists() and (tmp_path / "settings.json").exists()


@pytest.mark.parametrize("change", ["threat", "attacks", "seed", "model", "data", "curve"])
def test_a_folder_of_another_evaluation_is_refused_and_left_as_it_was(change: str, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / ".batch-00002.safetensors.123-0123abcd.jiio-part").write_bytes(b"half")
    before = contents(tmp_path)
    other: dict[str, Any] = {
        "threat": {"threat": ThreatModel("linf", 0.07)},
        "attacks": {"attacks": [PGD(steps=3)]},
        "seed": {"generator": seeded(2)},
        "model": {"model": equilibrium()},
        "data": {"batches": [(X[:16].flip(0), Y[:16].flip(0))]},
        "curve": {"curve": (0.5,)},
    }[change]
    with pytest.raises(jiio.CheckpointError, match=r"^(state_path|batches): expected"):
        run(tmp_path, **other)
    if change == "data":  # found out after the folder was known to be ours, and what was half written gone
        before.pop(".batch-00002.safetensors.123-0123abcd.jiio-part")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", ".other.part", ".settings.json.jiio-part"])
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("keep")
    (tmp_path / ".notes.txt.123-0123abcd.jiio-part").write_text("keep")
    before = contents(tmp_path)
    with pytest.raises(jiio.CheckpointError, match="an empty folder or one of an evaluation"):
        run(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["[]", "7", "null", '{"format": "other"}', "{", "[" * 100_000])
def test_settings_of_another_kind_are_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(jiio.CheckpointError, match=r"^state_path: expected"):
        run(tmp_path)


def test_a_file_in_place_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(jiio.JiioError, match=r"^state_path: expected a folder"):
            run(path)


# -- one evaluation at a time


def test_a_second_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder, said = tmp_path / "state", []

    def meddle(line: str) -> None:
        with pytest.raises(lock.InUseError, match=r"^state_path: expected a folder that nobody else writes into"):
            run(folder)
        said.append(line)

    report = run(folder, progress=meddle)
    assert len(said) == 2 and report.to_json() == run(folder).to_json()
    assert not (folder / lock.NAME).exists()


def test_the_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(jiio.ArgumentError, match=r"^batches"):
        run(tmp_path, batches=[])
    assert run(tmp_path).total == len(X)


def test_what_was_half_written_stays_while_another_evaluation_is_at_work(tmp_path: Path) -> None:
    part = tmp_path / ".batch-00000.safetensors.123-0123abcd.jiio-part"
    part.write_bytes(b"half")
    with lock.locked(tmp_path, "other"), pytest.raises(lock.InUseError):
        run(tmp_path)
    assert part.exists() and not (tmp_path / "settings.json").exists()


# -- entries


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    with saved(tmp_path, {"seed": 1}) as kept:
        assert kept.load("one", "data") is None
        kept.save("one", "data", ENTRY)
        entry = kept.load("one", "data")
        assert entry is not None and entry.words == ENTRY.words
        assert all(torch.equal(entry.tensors[name], ENTRY.tensors[name]) for name in ENTRY.tensors)
        with pytest.raises(jiio.CheckpointError, match=r"^batches: expected the data that one.safetensors"):
            kept.load("one", "other data")
    with saved(None, {}) as kept:
        kept.save("one", "data", ENTRY)
        assert kept.load("one", "data") is None


def test_every_flipped_bit_of_an_entry_is_seen(tmp_path: Path) -> None:
    """In names, shapes, words and numbers alike; one bit of every byte."""
    with saved(tmp_path, {"seed": 1}) as kept:
        kept.save("one", "data", ENTRY)
        path = tmp_path / "one.safetensors"
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            try:
                entry = kept.load("one", "data")
            except jiio.CheckpointError as error:
                assert "state_path: expected complete files" in str(error)
            else:  # white space that pads the head
                assert entry is not None and entry.words == ENTRY.words
                assert all(torch.equal(entry.tensors[name], ENTRY.tensors[name]) for name in ENTRY.tensors)


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b"", lambda b: b + b"x", lambda b: bytes(len(b))])
def test_a_damaged_entry_is_a_sentence(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    run(tmp_path)
    record = tmp_path / "batch-00000.safetensors"
    record.write_bytes(damage(record.read_bytes()))
    with pytest.raises(jiio.CheckpointError, match=r"complete files.*Remove it to run it anew"):
        run(tmp_path)


@pytest.mark.parametrize("words", ["[" * 100_000, "null", "{}", '{"data": "data", "tally": {}}'], ids=len)
@pytest.mark.parametrize("summed", [True, False])
def test_words_of_another_hand_are_a_sentence(words: str, summed: bool, tmp_path: Path) -> None:
    """Whole files that hold something else, with the sum of what was there or without any."""
    with saved(tmp_path, {"seed": 1}) as kept:
        kept.save("one", "data", ENTRY)
        path = tmp_path / "one.safetensors"
        with safe_open(str(path), "pt") as file:
            told = {"sum": file.metadata()["sum"]} if summed else {}
        save_file(ENTRY.tensors, path, {"json": words, **told})
        with pytest.raises(jiio.CheckpointError, match=r"complete files.*Remove it to run it anew"):
            kept.load("one", "data")
