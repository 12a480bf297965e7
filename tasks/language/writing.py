"""Text from a language model: one token at a time, with the states of all before it in the memory.

An equilibrium does not depend on what follows, so nothing has to be solved twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.shipped import shipped

from .model import LanguageModel
from .text import END_OF_LINE, UNKNOWN


def go_on(
    model: LanguageModel, x: Tensor, length: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """``length`` tokens after the embeddings x (1, n, width), as (length,) int64.

    temperature: of the draw; at 0 always the most probable token. <unk> is never written.
    """
    unknown = model.vocabulary().entries.index(UNKNOWN)
    body, piece, written = model.body, max(1, model.body.config.memory), []
    with torch.no_grad():
        # What is given, in pieces as long as the memory, so that a long text needs no long sequence.
        memory, state = None, x
        for start in range(0, x.shape[1], piece):
            segment = model.depth.read(body, x[:, start : start + piece], memory, penalty=False)
            state, memory = segment.state, segment.memory

        for _ in range(length):
            logs = body.tokens.log_probabilities(state[:, -1:])[0, 0]  # (vocabulary,)
            logs[unknown] = -torch.inf
            token = drawn(logs, temperature, generator)
            written.append(int(token))
            segment = model.depth.read(body, body.tokens.embed(token[None]), memory, penalty=False)
            state, memory = segment.state, segment.memory
    return torch.tensor(written)


def drawn(logs: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One token (1,) from the log-probabilities (vocabulary,) of all."""
    if temperature == 0:
        return logs.argmax()[None]
    chances = (logs / temperature).softmax(0).double().cpu()
    return torch.multinomial(chances, 1, generator=generator).to(logs.device)


def encoded(model: LanguageModel, argument: str, text: str) -> Tensor:
    """The numbers (n,) of a text that the model knows. Errors: InputError where it is empty or has unknown tokens."""
    vocabulary = model.vocabulary()
    unknown = vocabulary.unknown(text)
    if unknown:
        came = ", ".join(repr(token) for token in unknown[:5])
        fail(argument, f"{vocabulary.unit} that the model knows", came, "Leave them out.", InputError)
    numbers = vocabulary.encode(text)
    if vocabulary.unit == "words" and not text.endswith("\n"):
        numbers = numbers[:-1]  # the end of the line that the text does not have
    if not len(numbers):
        fail(argument, f"at least one of the {vocabulary.unit}", "an empty text", error=InputError)
    return numbers


def beginning(model: LanguageModel, text: str | None) -> list[int]:
    """The numbers of the text that is to be continued; of the end of a line where there is none."""
    if text is not None:
        return encoded(model, "--start", text).tolist()
    vocabulary = model.vocabulary()
    line_end = "\n" if vocabulary.unit == "characters" else END_OF_LINE
    return [vocabulary.entries.index(line_end) if line_end in vocabulary.entries else 0]


def opened(word: str, device: str = "cpu") -> LanguageModel:
    """The model of a checkpoint, on a device: a file, the folder of a training, or the name of weights that come with
    jiio.
    """
    place = check_device(device)
    return LanguageModel.of(load(shipped("CHECKPOINT", word, "weights", ".safetensors"))).to(place)
