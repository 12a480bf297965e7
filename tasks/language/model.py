"""A language model: a depth with the vocabulary that its tokens mean, and a text read segment by segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from jiio.checks import JiioError, fail
from jiio.models.sequences.model import AbstractSequenceModel, Memory
from jiio.outputs.shares import drawn
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.load import ConfigError

from .adversaries import AbstractAdversary, Found
from .config import LanguageConfig
from .depths import AbstractDepth, ReadSegment
from .text import Vocabulary


class LanguageModel(nn.Module):
    """A sequence model with the vocabulary that its numbers mean, which is stored with the weights."""

    words: Tensor

    def __init__(self, config: LanguageConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.depth: AbstractDepth = config.depth.make("depth", "depth")
        try:
            self.body: AbstractSequenceModel = self.depth.build(
                config.model.plan(len(vocabulary.entries)), config.solve
            )
        except JiioError as error:
            raise ConfigError(f"model: does not fit this text or depth; {error}") from error
        self.dropout = config.model.dropout
        self.register_buffer("words", vocabulary.packed())

    def vocabulary(self) -> Vocabulary:
        """What the numbers of the tokens mean."""
        return Vocabulary.unpacked(self.words.cpu())

    def read(
        self, tokens: Tensor, memory: Memory | None, *, depth: AbstractDepth | None = None, penalty: bool = False
    ) -> ReadSegment:
        """The states of a segment (B, T) after ``memory``. In train mode whole columns of embeddings and states are
        dropped, drawn from the global generator.
        """
        return self.hear(self.embed(tokens), memory, depth=depth, penalty=penalty)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token numbers (B, T) -> embeddings (B, T, width)."""
        return self._dropped(self.body.tokens.embed(tokens))

    def hear(
        self, x: Tensor, memory: Memory | None, *, depth: AbstractDepth | None = None, penalty: bool = False
    ) -> ReadSegment:
        """As :meth:`read`, from embeddings (B, T, width)."""
        reading = (depth or self.depth).read(self.body, x, memory, penalty=penalty)
        return dataclasses.replace(reading, state=self._dropped(reading.state))

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return x
        return x * drawn(lambda n: F.dropout(x.new_ones(n, 1, *x.shape[2:]), self.dropout), len(x))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LanguageModel:
        """The trained model of a checkpoint, in evaluation mode."""
        config, words = checkpoint.config, checkpoint.tensors.get("model.words")
        if not isinstance(config, LanguageConfig) or words is None:
            came = f"one of the task {config.task!r}"
            fail("CHECKPOINT", "a language model", came, "Train one: jiio train language-default.", InputError)
        return checkpoint.network(lambda: cls(config, Vocabulary.unpacked(words))).eval()


@dataclass(frozen=True)
class Piece:
    """One segment of a text that was read.

    surprise: (B, T), -log p of every next token. found: what the adversary made of it. reading: what the depth did.
    """

    surprise: Tensor
    found: Found
    reading: ReadSegment


def read_through(
    model: LanguageModel,
    adversary: AbstractAdversary,
    text: Tensor,
    length: int,
    *,
    depth: AbstractDepth | None = None,
    penalty: bool = False,
) -> Iterator[Piece]:
    """Texts (B, n) in segments of ``length`` tokens, perturbed by ``adversary``; the memory, which is carried on, is
    that of the perturbed text. The last segment may be shorter.
    """
    memory = None
    for start in range(0, text.shape[1] - 1, length):
        piece = text[:, start : start + length + 1]
        seen, next_ones = piece[:, :-1], piece[:, 1:]

        # The depth reads what the adversary left of the embeddings (B, T, width), after its own memory.
        found = adversary.find(model.body, model.embed(seen), memory, next_ones)
        reading = model.hear(found.x, memory, depth=depth, penalty=penalty)
        memory = reading.memory
        yield Piece(model.body.tokens.surprise(reading.state, next_ones), found, reading)
