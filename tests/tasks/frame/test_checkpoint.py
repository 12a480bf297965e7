"""Checkpoints that a disk has spoilt or a stranger has made: never believed, never a traceback, never a bomb."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from jiio import CheckpointError
from jiio.tasks.frame.checkpoint import checkpoints, load, load_newest, name_of, save
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.files import InputError
from jiio.tasks.restore.latent import RestoreConfig


def taken_apart(path: Path) -> tuple[dict, bytes]:
    """The header and the numbers of a safetensors file, without the library."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(path: Path, header: dict, numbers: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def saved(path: Path, **changes) -> Path:
    """A small checkpoint with an optimiser's state in it."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save(path, 3, RestoreConfig(**changes), model, optimiser)
    return path


def described(path: Path, about: object) -> Path:
    """The file with another description, on trust: without the checksum that would give it away."""
    header, numbers = taken_apart(path)
    old = json.loads(header["__metadata__"]["jiio"])
    old.pop("digest", None)
    new = about(old) if callable(about) else about
    header["__metadata__"]["jiio"] = new if isinstance(new, str) else json.dumps(new)
    put_together(path, header, numbers)
    return path


def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(tmp_path):
    """Every sixth byte of the file, one bit of it: a header is JSON, in which another blank may mean the same."""
    path = saved(tmp_path / "a.safetensors")
    whole, good = path.read_bytes(), load(path)
    same = 0
    for i in range(0, len(whole), 6):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i // 6 % 8)]) + whole[i + 1 :])
        try:
            got = load(path)
        except CheckpointError:
            continue
        same += 1
        assert (got.step, got.config, got.versions) == (good.step, good.config, good.versions), i
        assert got.tensors.keys() == good.tensors.keys()
        assert all(torch.equal(tensor, good.tensors[name]) for name, tensor in got.tensors.items()), i
    assert same < 10  # all in blanks


def test_a_flipped_bit_in_a_number_is_called_damage(tmp_path):
    path = saved(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 16]) + whole[-2:])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is damaged .*checksum.*checkpoint before it"):
        load(path)


def test_files_from_before_there_were_checksums_still_open(tmp_path):
    path = saved(tmp_path / "a.safetensors")
    good = load(path)
    got = load(described(path, lambda about: about))
    assert "digest" not in taken_apart(path)[0]["__metadata__"]["jiio"]
    assert got.config == good.config and torch.equal(got.tensors["model.weight"], good.tensors["model.weight"])


def test_what_was_read_stays_although_somebody_writes_into_the_file(tmp_path):
    path = saved(tmp_path / "a.safetensors")
    got, expected = load(path), load(path).tensors["model.weight"].clone()
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(got.tensors["model.weight"], expected)


def test_the_same_training_gives_the_same_bytes(tmp_path):
    one, two = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("spoil", [lambda d: b"", lambda d: d[:40], lambda d: d[:-9], lambda d: d[:-9] + b"x" + d[-8:]])
def test_a_spoilt_newest_checkpoint_is_passed_over_and_said(tmp_path, spoil):
    for step in (1, 2):
        saved(name_of(tmp_path, step))
    newest = name_of(tmp_path, 2)
    newest.write_bytes(spoil(newest.read_bytes()))
    said = []
    found = load_newest(tmp_path, said.append)
    assert found is not None and found.path == name_of(tmp_path, 1)
    assert len(said) == 1 and newest.name in said[0]

    name_of(tmp_path, 1).write_bytes(b"")
    with pytest.raises(Exception, match="step-0000000"):
        load_newest(tmp_path, said.append)


def test_checkpoints_stand_in_the_order_of_their_steps(tmp_path):
    names = ["step-00000009.safetensors", "step-99999999.safetensors", "step-100000000.safetensors"]
    for name in (*names, "step-1.safetensors", "step-x0000000.safetensors", "weights.safetensors"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == names


DEEP = 100_000


@pytest.mark.parametrize(
    "about",
    [
        *("", "{", "null", "[]", "7", '"x"', "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP),
        *(f'{{"step": 1, "config": {"[" * DEEP + "]" * DEEP}}}', '{"step": 1, "config": {"task": [[1]]}}'),
        *(lambda old, value=value: {**old, "config": value} for value in (None, [], "x", 3, True, {"task": {}})),
        *(lambda old, value=value: {**old, "step": value} for value in (None, True, -5, 3.9, "7", [1], 10**40, 1e400)),
        lambda old: {**old, "step": float("nan")},
        *(lambda old, value=value: {**old, "versions": value} for value in ([1], "x", 3)),
        *(lambda old, key=key: {k: v for k, v in old.items() if k != key} for key in ("config", "step")),
        lambda old: {**old, "handed": 3},
        lambda old: {**old, "more": 1},
        lambda old: {**old, "digest": 1},
        lambda old: {**old, "config": {**old["config"], "seed": {"a": [[[1]]]}}},
        lambda old: {
            **old,
            "config": {**old["config"], "model": {"cell": {"name": "Dense", "options": {"x": 10**400}}}},
        },
    ],
)
def test_a_hostile_description_is_a_sentence(tmp_path, about):
    path = described(saved(tmp_path / "a.safetensors"), about)
    with pytest.raises(CheckpointError, match=r"^checkpoint: .*a\.safetensors"):
        load(path)


CELL = {"name": "Dense", "options": {"features": 12}}
SMALL = {"cell": CELL, "latent": 4, "squash": "none"}


@pytest.fixture(scope="module")
def restorer(tmp_path_factory) -> Path:
    """A checkpoint of a small restorer, as its task builds it."""
    path = tmp_path_factory.mktemp("restorer") / "a.safetensors"
    config = small_config()
    torch.manual_seed(0)
    from jiio.tasks.restore.latent import Restore

    save(path, 5, config, Restore(config).model())
    return path


def small_config() -> RestoreConfig:
    from jiio.tasks.frame.load import build

    data = {"size": 16, "batch_size": 4, "test_limit": 2}
    return build(RestoreConfig, {"task": "restore", "data": data, "model": SMALL, "joint": {"max_steps": 3}})


def with_model(path: Path, **changes) -> Path:
    """Another size in the configuration of a file whose tensors stay."""
    return described(path, lambda old: {**old, "config": {**old["config"], "model": {**SMALL, **changes}}})


@pytest.mark.parametrize(
    "changes",
    [
        *({"cell": {"name": "Dense", "options": {"features": size}}} for size in (60_000, 10**9, 10**12, 10**30)),
        *({"cell": {"name": "Conv", "options": {"channels": size}}} for size in (60_000, 10**9)),
        {"cell": {"name": "Conv", "options": {"channels": 4, "expansion": 10**9}}},
        *({"latent": size} for size in (10**7, 10**12)),
    ],
)
def test_a_configuration_that_asks_for_more_than_the_file_brings_is_refused_before_it_is_built(
    restorer, tmp_path, changes
):
    path = tmp_path / "a.safetensors"
    path.write_bytes(restorer.read_bytes())
    begin = time.process_time()
    with pytest.raises(CheckpointError, match=r"configuration|weights|no network"):
        evaluate(load(with_model(path, **changes)))
    assert time.process_time() - begin < 30  # to fill the memory takes minutes


def test_more_layers_than_a_file_could_fill_end_soon(tmp_path):
    checkpoint = load(saved(tmp_path / "a.safetensors"))
    made = []

    def endless() -> nn.Module:
        while True:
            made.append(nn.Linear(1, 1))

    with pytest.raises(CheckpointError, match="fits the weights beside it"):
        checkpoint.network(endless)
    assert len(made) < 2_000


def test_a_network_that_the_weights_fit_is_built_as_without_a_limit(tmp_path):
    checkpoint = load(saved(tmp_path / "a.safetensors"))
    torch.manual_seed(1)
    built = checkpoint.network(lambda: nn.Linear(3, 2))
    after = torch.rand(2)
    torch.manual_seed(1)
    nn.Linear(3, 2)
    assert torch.equal(after, torch.rand(2))
    assert torch.equal(built.weight, checkpoint.tensors["model.weight"])


@pytest.mark.parametrize(
    "error", [OverflowError, RuntimeError, MemoryError, TypeError, RecursionError, ZeroDivisionError]
)
def test_what_building_runs_into_is_a_sentence(tmp_path, error):
    def broken() -> nn.Module:
        raise error("size")

    with pytest.raises(CheckpointError, match=f"makes no network .{error.__name__}: .?size"):
        load(saved(tmp_path / "a.safetensors")).network(broken)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: w.fill_(float("nan")), "6 of 6 NaN, infinite or too large in 'weight'"),
        (lambda w: w[0, 0].fill_(float("inf")), "1 of 6 NaN, infinite or too large in 'weight'"),
        (lambda w: w[0, 0].fill_(-1e38), "1 of 6 NaN, infinite or too large in 'weight'"),
        (lambda w: w.to(torch.int64), "expected weights of float32, got 'weight' of int64"),
        (lambda w: w.to(torch.bool), "got 'weight' of bool"),
        (lambda w: w.to(torch.complex64), "got 'weight' of complex64"),
        (lambda w: w.to(torch.float8_e5m2), "got 'weight' of float8_e5m2"),
    ],
)
def test_weights_that_nothing_can_compute_with_are_a_sentence(tmp_path, spoil, words):
    checkpoint = load(saved(tmp_path / "a.safetensors"))
    spoilt = checkpoint.tensors["model.weight"] = checkpoint.tensors["model.weight"].clone()
    made = spoil(spoilt)
    checkpoint.tensors["model.weight"] = spoilt if made.shape != spoilt.shape else made
    with pytest.raises(CheckpointError, match=words):
        checkpoint.restore_model(nn.Linear(3, 2))


def test_infinities_in_a_buffer_are_its_own_affair_and_nan_is_not(tmp_path):
    class Masked(nn.Linear):
        def __init__(self, value: float = 0.0) -> None:
            super().__init__(3, 2)
            self.register_buffer("mask", torch.tensor([0.0, value]))

    save(tmp_path / "a.safetensors", 1, RestoreConfig(), Masked(float("-inf")))
    assert float(load(tmp_path / "a.safetensors").network(Masked).get_buffer("mask")[1]) == float("-inf")
    save(tmp_path / "a.safetensors", 1, RestoreConfig(), Masked(float("nan")))
    with pytest.raises(CheckpointError, match="'mask'"):
        load(tmp_path / "a.safetensors").network(Masked)


@pytest.mark.parametrize("value", [torch.full((2, 3), float("nan")), torch.ones(3, 2), torch.ones(10**6)])
def test_an_optimiser_state_that_does_not_fit_is_a_sentence(tmp_path, value):
    checkpoint = load(saved(tmp_path / "a.safetensors"))
    checkpoint.tensors["optimiser.weight:exp_avg"] = value
    model = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="weight"):
        checkpoint.restore_optimiser(model, torch.optim.AdamW(model.parameters()))


def test_places_may_be_text_and_shipped_weights_go_by_their_name(tmp_path):
    assert load("restore-faces").path.name == "restore-faces.safetensors"
    made = saved(tmp_path / "step-00000003.safetensors")
    assert load(str(tmp_path)).path == load(str(made)).path == made


@pytest.mark.parametrize("path", [3, "", None, b"run"])
def test_what_is_no_path_is_a_sentence(path):
    with pytest.raises(InputError, match="path: expected a path, as text"):
        load(path)
    if path is not None:  # which means that none was given
        with pytest.raises(InputError, match="data_root: expected a path, as text"):
            evaluate(load("restore-faces"), data_root=path)
