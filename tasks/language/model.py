"""A language model: tokens in, the surprise of the next token out."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio.checks import JiioError, fail
from jiio.models.sequences.model import AbstractSequenceModel, Memory
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.load import ConfigError

from .config import LanguageConfig
from .depths import AbstractDepth, Segment
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
    ) -> Segment:
        """The states of a segment (B, T) after ``memory``. In train mode whole columns of embeddings and states are
        dropped, drawn from the global generator.
        """
        return self.hear(self.embed(tokens), memory, depth=depth, penalty=penalty)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token numbers (B, T) -> embeddings (B, T, width)."""
        return self._dropped(self.body.tokens.embed(tokens))

    def hear(
        self, x: Tensor, memory: Memory | None, *, depth: AbstractDepth | None = None, penalty: bool = False
    ) -> Segment:
        """As :meth:`read`, from embeddings (B, T, width)."""
        segment = (depth or self.depth).read(self.body, x, memory, penalty=penalty)
        return dataclasses.replace(segment, state=self._dropped(segment.state))

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return x
        return x * F.dropout(torch.ones_like(x[:, :1]), self.dropout)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LanguageModel:
        """The trained model of a checkpoint, in evaluation mode."""
        if not isinstance(checkpoint.config, LanguageConfig) or "model.words" not in checkpoint.tensors:
            came = f"one of the task {checkpoint.config.task!r}"
            fail("CHECKPOINT", "a language model", came, "Train one: jiio train language-default.", InputError)
        model = cls(checkpoint.config, Vocabulary.unpacked(checkpoint.tensors["model.words"]))
        checkpoint.restore_model(model)
        return model.eval()
