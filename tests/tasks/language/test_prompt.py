"""Soft prompts: the joint solve against the gradient of the converged equilibrium, finite differences and Adam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import jiio
from helpers import central
from jiio.checks import JiioError
from jiio.models import TransformerModel
from jiio.tasks.cli import main
from jiio.tasks.frame.load import build
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.prompt import PromptProblem, fit_prompt, nested
from jiio.tasks.language.text import Vocabulary

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(atol=1e-9, rtol=1e-9)
VOCABULARY = Vocabulary("characters", (*"abcdefg\n", "<unk>"))


def made(**over) -> LanguageModel:
    torch.manual_seed(0)
    config = build(LanguageConfig, {"model": {"width": 8, "heads": 2, "inner": 12, "memory": 40}} | over)
    model = LanguageModel(config, VOCABULARY).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("table"):  # as sure of itself as a trained one
            parameter.mul_(3.0)
    return model


def posed(model: LanguageModel, target: Tensor, **options) -> PromptProblem:
    return PromptProblem(model.to(DOUBLE), target, length=2, prior=0.5, **options)


def solved(model: LanguageModel, target: Tensor, **options) -> tuple[PromptProblem, jiio.Solution]:
    task = posed(model, target, **options)
    solution = jiio.solve(
        task.problem(), task.start, adjoint=jiio.Detached(), tolerance=TIGHT, max_steps=800, on_failure="ignore"
    )
    return task, solution


def objective(task: PromptProblem, x: Tensor) -> Tensor:
    """(B,) at the converged equilibrium, a route without the joint iteration."""
    adjoint = jiio.Implicit(tolerance=TIGHT, max_steps=500)
    solution = task.model.solve(x, tolerance=TIGHT, max_steps=500, adjoint=adjoint)
    return task.objective(task.model.head(solution.z), x)


def test_the_fitted_prompt_is_stationary_and_lower() -> None:
    task, solution = solved(made(), VOCABULARY.encode("abcab"), restarts=3)
    assert bool(solution.converged.any())
    x = solution.x[solution.converged].detach().requires_grad_()
    task.start = task.start[solution.converged]
    value = objective(task, x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert float(slope.abs().max()) < 1e-5
    torch.testing.assert_close(value.detach(), solution.value[solution.converged])
    assert bool((value < objective(task, task.start)).all())
    direction = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    assert abs(central(lambda at: objective(task, at).sum(), x.detach(), direction, 1e-4)) < 1e-5


def test_the_gradient_in_the_prompt_by_finite_differences() -> None:
    task = posed(made(), VOCABULARY.encode("bad"), restarts=2)
    x = task.start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(task, x).sum(), x)
    direction = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    numeric = central(lambda at: objective(task, at).sum(), x.detach(), direction)
    assert numeric == pytest.approx(float((slope * direction).sum()), rel=1e-6)


def test_restarts_do_not_touch_each_other() -> None:
    task, together = solved(made(), VOCABULARY.encode("face"), restarts=3)
    starts = task.start
    for i in range(3):
        task.start = starts[i : i + 1]
        alone = jiio.solve(
            task.problem(), task.start, adjoint=jiio.Detached(), tolerance=TIGHT, max_steps=800, on_failure="ignore"
        )
        assert alone.status[0] == together.status[i]
        if bool(alone.converged[0]):
            torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_adam_arrives_at_the_same_objective() -> None:
    task, solution = solved(made(), VOCABULARY.encode("abcab"))
    assert bool(solution.converged.all())
    spent, values = nested(task, rate=0.05, steps=100, tolerance=jiio.Tolerance(atol=1e-7, rtol=1e-6))
    assert spent == sorted(spent) and len(spent) == len(values) == 100
    assert float(values[-1]) == pytest.approx(float(solution.value), rel=3e-3)
    assert spent[-1] > solution.evaluations.total


def test_the_figures_of_a_fit_are_those_of_the_probabilities() -> None:
    model, target = made(), VOCABULARY.encode("cabbage")
    prompt = fit_prompt(model, target, length=3, restarts=2, prior=0.05)
    assert prompt.after < prompt.before
    sequence = torch.cat([prompt.embedding[None], model.body.tokens.embed(target[None, :-1])], 1)
    assert isinstance(model.body, TransformerModel)
    tight = jiio.Tolerance(atol=1e-6, rtol=1e-6)
    model.body.settings = model.body.settings.merged(tolerance=tight, max_steps=200)
    logs = model.body.tokens.log_probabilities(model.body.states(sequence)[0])[0, -len(target) :]
    assert prompt.after == pytest.approx(-float(logs.gather(1, target[:, None]).mean()), rel=1e-4)
    assert torch.equal(prompt.spoken, logs.argmax(1))
    assert prompt.exact == pytest.approx(float((logs.argmax(1) == target).double().mean()))


def test_one_token_is_a_target() -> None:
    prompt = fit_prompt(made(), VOCABULARY.encode("a"), length=1, restarts=1, max_steps=60)
    assert prompt.embedding.shape == (1, 8) and prompt.after < prompt.before


@pytest.mark.parametrize("depth", [{"name": "WeightTied", "options": {"layers": 2}}, {"name": "Explicit"}])
def test_layers_are_refused(depth: dict) -> None:
    model = made(depth=depth, model={"width": 8, "heads": 2, "inner": 64})
    with pytest.raises(JiioError, match="Equilibrium"):
        fit_prompt(model, VOCABULARY.encode("abc"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, run = tmp_path / "text.txt", str(tmp_path / "run")
    text.write_text("abc cab bac\n" * 40)
    (tmp_path / "config.yaml").write_text(
        f"task: language\nsteps: 3\nthreads: 1\noutput: {run}\n"
        f"data: {{family: 'file:{text}', segment: 8, batch_size: 2}}\n"
        "model: {width: 8, heads: 2, inner: 8, memory: 8}\n"
    )
    assert main(["train", str(tmp_path / "config.yaml")]) == 0
    capsys.readouterr()
    out = tmp_path / "prompt.safetensors"
    words = ["prompt", run, "--target", "cab", "--length", "2", "--restarts", "2", "--max-steps", "40"]
    assert main([*words, "--output", str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["nats per token after"] < figures["nats per token before"]
    assert figures["target"] == "cab" and len(figures["said alone"]) == 3 and figures["evaluations"] > 0
    assert load_file(out)["prompt"].shape == (2, 8)
    for bad, said in [
        (["prompt", run], "target"),
        (["prompt", run, "--target", "xyz"], "'x', 'y', 'z'"),
        (["prompt", run, "--target", ""], "--target"),
        (["prompt", run, "--target", "ab" * 1500], "at most 2000"),
        (["prompt", run, "--target", "a", "--length", "0"], "--length"),
        (["prompt", run, "--target", "a", "--restarts", "0"], "--restarts"),
        (["prompt", run, "--target", "a", "--prior", "0"], "--prior"),
        (["prompt", run, "--target", "a", "--max-steps", "1"], "--max-steps"),
        (["prompt", run, "--target", "a", "--seed", "-3"], "--seed"),
        (["prompt", run, "--target", "a", "--output", str(tmp_path)], "--output"),
        (["prompt", "restore-faces", "--target", "a"], "a language model"),
        (["prompt", str(text), "--target", "a"], "checkpoint"),
        (["prompt", run, "--target", "a", "--rate", "1"], "rate"),
    ]:
        assert main(bad) == 2, bad
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err, (bad, err)
