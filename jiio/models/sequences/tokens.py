"""Tokens: from a number to an embedding, and from a state to the probability of the next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import ArgumentTypeError, check_integer, check_number, fail
from .attention import check_tokens


class Tokens(nn.Module):
    """Embedding and output of a vocabulary; both use the same weights.

    vocabulary: number of tokens, the frequent ones first. cutoffs: without them the output is a plain softmax; with
    them an adaptive one (Grave et al. 2017), where tokens from cutoffs[i] on have 1 / divisor**(i + 1) of the width, in
    the output and, by the same matrices, in the embedding (Baevski and Auli 2019).
    """

    def __init__(self, vocabulary: int, width: int, *, cutoffs: tuple[int, ...] = (), divisor: float = 4.0) -> None:
        super().__init__()
        self.vocabulary, self.width = check_integer("vocabulary", vocabulary, 2), check_integer("width", width, 1)
        self.cutoffs = check_cutoffs(cutoffs, vocabulary)
        check_number("divisor", divisor, 1.0)

        # Entries of variance 1 / width, so that an embedding times sqrt(width) has entries of order one.
        if self.cutoffs:
            if width // divisor ** len(self.cutoffs) < 1:
                fail("cutoffs", f"fewer of them, for a width of {width} and a divisor of {divisor:g}", cutoffs)
            self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
                width, vocabulary, list(self.cutoffs), div_value=divisor, head_bias=True
            )
            nn.init.normal_(self.softmax.head.weight, std=width**-0.5)
            nn.init.zeros_(self.softmax.head.bias)
        else:
            self.table = nn.Parameter(torch.randn(vocabulary, width) * width**-0.5)
            self.bias = nn.Parameter(torch.zeros(vocabulary))

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T), whole numbers below ``vocabulary`` -> embeddings (B, T, width) with entries of order one."""
        self.check("tokens", tokens)
        if not self.cutoffs:
            return self.width**0.5 * F.embedding(tokens, self.table)
        first = self.cutoffs[0]
        frequent = F.embedding(tokens.clamp_max(first - 1), self.softmax.head.weight[:first])
        found = frequent * (tokens < first)[..., None]
        for i, low in enumerate(self.cutoffs):
            high = (*self.cutoffs, self.vocabulary)[i + 1]
            here = (tokens >= low) & (tokens < high)
            down, up = self.softmax.tail[i]  # type: ignore[misc]
            rare = F.embedding(tokens[here] - low, up.weight) @ down.weight
            found = found.masked_scatter(here[..., None].expand_as(found), rare)
        return self.width**0.5 * found

    def surprise(self, state: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) in nats per token: state (B, T, width), targets (B, T) -> (B, T)."""
        check_tokens("state", state, self.width)
        self.check("targets", targets)
        if targets.shape != state.shape[:2]:
            fail("targets", f"one token for each of the {tuple(state.shape[:2])} states", targets)
        if self.cutoffs:
            return -self.softmax(state.flatten(0, 1), targets.flatten()).output.view_as(targets)
        scores = F.linear(state, self.table, self.bias)
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def log_probabilities(self, state: Tensor) -> Tensor:
        """state (B, T, width) -> (B, T, vocabulary), of every token."""
        check_tokens("state", state, self.width)
        if self.cutoffs:
            return self.softmax.log_prob(state.flatten(0, 1)).unflatten(0, state.shape[:2])
        return F.linear(state, self.table, self.bias).log_softmax(2)

    def check(self, argument: str, tokens: Tensor) -> None:
        """Raise unless ``tokens`` are (B, T) whole numbers of the vocabulary. argument: their name in the sentence."""
        if tokens.dtype != torch.int64 or tokens.dim() != 2 or tokens.numel() == 0:
            fail(argument, "int64 token numbers of shape (B, T)", tokens, error=ArgumentTypeError)
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocabulary:
            fail(argument, f"token numbers from 0 to {self.vocabulary - 1}", f"{low} to {high}")


def check_cutoffs(cutoffs: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    """Rising whole numbers below the size of the vocabulary."""
    for entry in cutoffs:
        check_integer("cutoffs", entry, 1)
    if list(cutoffs) != sorted(set(cutoffs)) or (cutoffs and cutoffs[-1] >= vocabulary):
        fail("cutoffs", f"rising numbers below the size of the vocabulary, {vocabulary}", cutoffs)
    return tuple(cutoffs)
