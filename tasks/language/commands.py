"""The commands ``jiio write`` and ``jiio prompt``; the work is in :mod:`.writing` and :mod:`.prompt`, which
are imported when they run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

MAX_LENGTH = 100_000
MAX_TARGET = 2000


def declare_write(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments of ``jiio write``."""
    add: Callable[..., Any] = parser.add_argument
    add("checkpoint", type=str, help="a checkpoint of the task language, or the folder of its training")
    add("--start", type=str, help="the text that is continued (default: the end of a line)")
    add("--length", type=int, default=300, help="characters or words to write")
    add("--temperature", type=float, default=0.8, help="of the draw; 0 takes the most probable always")
    add("--seed", type=int, default=0, help="of the draw")


def run_write(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Print a continuation on standard output."""
    import torch

    from jiio.checks import check_integer, check_number
    from jiio.outputs.seeds import generator
    from jiio.tasks.frame.config import whole
    from jiio.tasks.frame.machine import cpu_threads

    from .text import END_OF_LINE
    from .writing import encoded, go_on, opened

    length, seed = values.get("length", 300), check_integer("--seed", values.get("seed", 0), 0)
    whole("--length", length, 1, MAX_LENGTH)
    temperature = check_number("--temperature", values.get("temperature", 0.8), 0.0)
    model = opened(values["checkpoint"])
    start, vocabulary = values.get("start"), model.vocabulary()
    if start is None:
        line_end = "\n" if vocabulary.unit == "characters" else END_OF_LINE
        number = vocabulary.entries.index(line_end) if line_end in vocabulary.entries else 0
        begin = [number]
    else:
        begin = encoded(model, "--start", start).tolist()
    with cpu_threads(1):
        x = model.body.tokens.embed(torch.tensor([begin])).detach()
        told = go_on(model, x, length, temperature=temperature, generator=generator(seed, "write"))
    print(vocabulary.decode([*(begin if start is not None else []), *told.tolist()]))
    return 0


def declare_prompt(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The arguments of ``jiio prompt``."""
    add: Callable[..., Any] = parser.add_argument
    add("checkpoint", type=str, help="a checkpoint of the task language, or the folder of its training")
    add("--target", type=str, required=True, help="the text that the model is to say")
    add("--length", type=int, default=4, help="embeddings in the prompt")
    add("--prior", type=float, default=0.1, help="weight of 1/2 |prompt - start|^2")
    add("--restarts", type=int, default=4, help="starts, of which the best is kept")
    add("--max-steps", type=int, default=200, help="of the joint solve")
    add("--seed", type=int, default=0, help="of the starts")
    add("--output", type=str, help="write the prompt to this file (safetensors)")


def run_prompt(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Fit a prompt; the figures go to standard output as JSON."""
    from jiio.checks import check_integer, check_number, fail
    from jiio.outputs.atomic import write_whole
    from jiio.tasks.frame.config import whole
    from jiio.tasks.frame.files import InputError, check_output_file
    from jiio.tasks.frame.machine import cpu_threads

    from .prompt import fit_prompt
    from .writing import encoded, go_on, opened

    get = values.get
    for name, default, high in (("length", 4, 1000), ("restarts", 4, 1000), ("max_steps", 200, 100_000)):
        whole(f"--{name.replace('_', '-')}", get(name, default), 1 if name != "max_steps" else 2, high)
    prior = check_number("--prior", get("prior", 0.1), 0.0, open_low=True)
    seed = check_integer("--seed", get("seed", 0), 0)
    output = None if get("output") is None else check_output_file("--output", Path(values["output"]))
    model = opened(values["checkpoint"])
    target = encoded(model, "--target", values["target"])
    if len(target) > MAX_TARGET:
        fail("--target", f"at most {MAX_TARGET} {model.vocabulary().unit}", f"{len(target)}", error=InputError)
    with cpu_threads(1):
        prompt = fit_prompt(
            model,
            target,
            length=get("length", 4),
            prior=prior,
            restarts=get("restarts", 4),
            max_steps=get("max_steps", 200),
            seed=seed,
        )
        told = go_on(model, prompt.embedding[None], len(target), temperature=0.0)
    vocabulary = model.vocabulary()
    figures = {
        "target": values["target"],
        "nats per token before": prompt.before,
        "nats per token after": prompt.after,
        "first choices that are the target's": prompt.exact,
        "said alone": vocabulary.decode(told.tolist()),
        "converged": prompt.converged,
        "evaluations": prompt.evaluations,
    }
    if output is not None:
        from safetensors.torch import save

        write_whole(output, save({"prompt": prompt.embedding.detach().cpu().contiguous()}))
        print(f"Prompt in {output}.", file=sys.stderr)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    return 0
