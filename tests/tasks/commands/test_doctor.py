"""``jiio doctor``: a machine that is well, and two that are not."""

from __future__ import annotations

import torch

from jiio.tasks.cli import main
from jiio.tasks.commands import doctor


def test_the_doctor_finds_this_machine_well(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out and "All is well." in out
    for words in ("torch 2", "threads", "vision", "attacks", "log", "autoattack", "relative error", "batched LU"):
        assert words in out


def test_the_doctor_finds_a_wrong_gradient(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "equilibrium_loss", lambda w: (w * w.detach()).sum())  # the gradient misses a factor 2
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  implicit gradient" in out and "1 finding(s) not well." in out


def test_the_doctor_finds_a_wrong_linear_solver(capsys, monkeypatch):
    monkeypatch.setattr(torch.linalg, "solve", lambda a, b: b)
    assert not doctor.batched_lu().well
