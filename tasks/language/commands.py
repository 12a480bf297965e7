"""The commands ``jiio write`` and ``jiio prompt``: their options; the work is in :mod:`.writing` and :mod:`.prompt`,
which are imported when they run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.checks import check_number, fail
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, chosen, declare
from jiio.tasks.frame.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from .model import LanguageModel
    from .prompt import Prompt

MAX_LENGTH = 100_000
MAX_TARGET = 2000


@dataclass(frozen=True)
class WriteOptions:
    """What a language model continues, and how.

    Args:
        checkpoint: a checkpoint of the task language, or the folder of its training
        start: the text that is continued (default: the end of a line)
        length: characters or words to write
        temperature: of the draw; 0 takes the most probable always
        seed: of the draw
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
    """

    checkpoint: str
    start: str | None = None
    length: int = 300
    temperature: float = 0.8
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        whole("--length", self.length, 1, MAX_LENGTH)
        check_number("--temperature", self.temperature, 0.0)
        check_seed(self.seed)


def declare_write(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options of ``jiio write``."""
    declare(parser, WriteOptions)


def run_write(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Print a continuation on standard output."""
    options = chosen(WriteOptions, values)
    import torch

    from jiio.outputs.seeds import generator
    from jiio.tasks.frame.machine import cpu_threads

    from .writing import beginning, go_on, opened

    model = opened(options.checkpoint, options.device)
    begin = beginning(model, options.start)
    with cpu_threads(1):
        x = model.body.tokens.embed(torch.tensor([begin]).to(model.words.device)).detach()  # (1, n, width)
        draw = generator(options.seed, "write")
        told = go_on(model, x, options.length, temperature=options.temperature, generator=draw)

    # An end of a line that nobody asked for is not shown.
    shown = begin if options.start is not None else []
    print(model.vocabulary().decode([*shown, *told.tolist()]))
    return 0


@dataclass(frozen=True)
class PromptOptions:
    """What a prompt shall make a language model say, and how it is found.

    Args:
        checkpoint: a checkpoint of the task language, or the folder of its training
        target: the text that the model is to say
        length: embeddings in the prompt
        prior: weight of 1/2 |prompt - start|^2
        restarts: starts, of which the best is kept
        max_steps: of the joint solve
        seed: of the starts
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        output: write the prompt to this file (safetensors)
        overwrite: replace the file of --output; a checkpoint, never
    """

    checkpoint: str
    target: str = field(kw_only=True)
    length: int = 4
    prior: float = 0.1
    restarts: int = 4
    max_steps: int = 200
    seed: int = 0
    device: str = "cpu"
    output: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        whole("--length", self.length, 1, 1000)
        whole("--restarts", self.restarts, 1, 1000)
        whole("--max-steps", self.max_steps, 2, 100_000)
        check_number("--prior", self.prior, 0.0, open_low=True)
        check_seed(self.seed)


def declare_prompt(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options of ``jiio prompt``."""
    declare(parser, PromptOptions)


def run_prompt(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Fit a prompt; the figures go to standard output as JSON."""
    options = chosen(PromptOptions, values)
    check_place(options)
    from jiio.tasks.frame.machine import cpu_threads

    from .prompt import fit_prompt
    from .writing import encoded, go_on, opened

    model = opened(options.checkpoint, options.device)
    target = encoded(model, "--target", options.target)
    if len(target) > MAX_TARGET:
        fail("--target", f"at most {MAX_TARGET} {model.vocabulary().unit}", f"{len(target)}", error=InputError)

    # The prompt, and what the model says after it when left alone.
    names = ("length", "prior", "restarts", "max_steps", "seed")
    with cpu_threads(1):
        prompt = fit_prompt(model, target.to(model.words.device), **{name: getattr(options, name) for name in names})
        told = go_on(model, prompt.embedding[None], len(target), temperature=0.0)

    if options.output is not None:
        save_prompt(options.output, prompt)
    print(json.dumps(account(options, model, prompt, told), indent=2, ensure_ascii=False))
    return 0


def check_place(options: PromptOptions) -> None:
    """Refuse what must not be written to."""
    from jiio.tasks.frame.outputs import Outputs, of_checkpoint
    from jiio.tasks.frame.shipped import shipped

    path = shipped("CHECKPOINT", options.checkpoint, "weights", ".safetensors")
    if options.output is not None:
        Outputs(of_checkpoint(path), options.overwrite).file("--output", options.output)


def account(options: PromptOptions, model: LanguageModel, prompt: Prompt, told: Tensor) -> dict[str, Any]:
    """The figures. told: (n,) tokens, what the model says after the prompt."""
    return {
        "target": options.target,
        "nats per token before": prompt.before,
        "nats per token after": prompt.after,
        "first choices that are the target's": prompt.exact,
        "said alone": model.vocabulary().decode(told.tolist()),
        "converged": prompt.converged,
        "evaluations": prompt.evaluations,
    }


def save_prompt(path: Path, prompt: Prompt) -> None:
    """Write the embeddings of a prompt, and say so."""
    from safetensors.torch import save

    from jiio.outputs.atomic import write_whole

    write_whole(path, save({"prompt": prompt.embedding.detach().cpu().contiguous()}))
    say(f"Prompt in {path}.")
