"""Language models: the task ``language``, a DEQ transformer or one of its explicit relatives, on any text."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from jiio.checks import fail
from jiio.outputs.seeds import generator
from jiio.tasks.frame.checkpoint import Checkpoint, load
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.task import AbstractTask

from .adversaries import AbstractAdversary, Unperturbed
from .config import LanguageConfig
from .depths import WeightTied
from .model import LanguageModel, Piece, read_through
from .text import Vocabulary, draw_texts, lay_out, load_text
from .writing import go_on

Row = dict[str, str | float]
SAMPLE = 200  # tokens that are written at the end of a training


class Language(AbstractTask):
    """The task ``language`` of a training configuration."""

    PICTURES = ("sample.txt",)

    def __init__(self, config: LanguageConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.adversaries = config.adversaries()
        train, self.text = load_text(config.data, data_root=data_root)
        self.vocabulary = self._vocabulary(train)
        self.packed = self.vocabulary.packed().to(self.device)
        self.tokens = self.vocabulary.encode(train)[: config.data.train_limit]
        if len(self.tokens) < self.block:
            came = f"{len(self.tokens)} {config.data.unit}"
            fail("data", f"a training text of at least {self.block} {config.data.unit}", came, error=InputError)
        self.model()  # sizes that do not fit this vocabulary are told now

    @property
    def block(self) -> int:
        """The least text that a step can draw from; a training text is shared out in such pieces."""
        return self.config.data.segments * self.config.data.segment + 1

    def examples(self) -> Tensor:
        return torch.zeros(len(self.tokens) // self.block, dtype=torch.int64, device="cpu")

    def part(self, chosen: Tensor, config: LanguageConfig) -> Language:
        mine, pieces = copy.copy(self), len(self.tokens) // self.block
        mine.config = config
        mine.tokens = self.tokens[: pieces * self.block].view(pieces, -1)[chosen.sort().values].flatten()
        return mine

    def _vocabulary(self, train: str) -> Vocabulary:
        """Of the training text, or that of the weights to begin with."""
        config = self.config
        if config.start is None:
            return Vocabulary.of(train, config.data.unit, config.data.vocabulary)
        other = load(shipped("start", config.start, "weights", ".safetensors"))
        if "model.words" not in other.tensors:
            fail("start", "weights of the task language", f"those of the task {other.config.task!r}", error=InputError)
        return Vocabulary.unpacked(other.tensors["model.words"])

    def model(self) -> nn.Module:
        return LanguageModel(self.config, self.vocabulary)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The mean surprise of the next token, and the Jacobian penalty in the steps that take it."""
        assert isinstance(model, LanguageModel)
        self._check_words(model)
        config = self.config
        text = draw_texts(self.tokens, config.data, seed=config.seed, step=step).to(self.device)

        # A warm step runs a few layers: it knows neither penalty nor adversary.
        depth = WeightTied(config.warm.layers) if step < config.warm.steps else None
        penalty = depth is None and self._penalised(step)
        pieces: list[Piece] = []
        for adversary in self.adversaries if depth is None and self.adversaries else [Unperturbed()]:
            pieces += read_through(model, adversary, text, config.data.segment, depth=depth, penalty=penalty)

        surprise = torch.stack([piece.surprise.mean() for piece in pieces]).mean()
        figures = self.figures(surprise, pieces)
        prices = [piece.reading.penalty for piece in pieces if piece.reading.penalty is not None]
        if not prices:  # not in this step, or layers without an equilibrium
            return surprise, figures
        price = torch.stack(prices).mean()
        return surprise + config.jacobian.weight * price, figures | {"jacobian": float(price.detach())}

    def _check_words(self, model: LanguageModel) -> None:
        """That the text was not changed between two parts of a training."""
        if not torch.equal(model.words, self.packed):
            remedy = "Train into another --output."
            fail("data", "the text that the training began with", "one with another vocabulary", remedy, InputError)

    def _penalised(self, step: int) -> bool:
        """Whether this step takes the Jacobian penalty."""
        config = self.config.jacobian
        draw = float(torch.rand((), generator=generator(self.config.seed, "jacobian", step)))
        return config.weight > 0 and draw < config.share

    def figures(self, surprise: Tensor, pieces: list[Piece]) -> dict[str, float]:
        """For the log; those of the solve are of the last segment."""
        told = {"perplexity": math.exp(min(float(surprise.detach()), 700.0)), **pieces[-1].reading.figures}
        if self.adversaries:
            told["adversary_evaluations"] = float(sum(piece.found.evaluations for piece in pieces))
            told["adversary_vjps"] = float(sum(piece.found.vjps for piece in pieces))
        return told

    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """A text to look at: how the model goes on where the held-out text begins."""
        assert isinstance(model, LanguageModel)
        vocabulary = model.vocabulary()
        begin = vocabulary.encode(self.text)[: self.config.data.segment].tolist()
        x = model.body.tokens.embed(torch.tensor([begin], device=self.device)).detach()
        source = generator(self.config.seed, "sample")
        told = go_on(model, x, SAMPLE, temperature=0.8, generator=source).tolist()
        text = f"{vocabulary.decode(begin)}\n---- what the model wrote ----\n{vocabulary.decode(told)}\n"
        return {"sample.txt": text.encode()}

    def evaluate(self, model: nn.Module) -> list[Row]:
        """Perplexity per word or per character on the held-out text, read in segments with the memory carried on; and
        what it is when the adversaries of the training have had the embeddings first.
        """
        assert isinstance(model, LanguageModel)
        others = [a for a in self.adversaries if not isinstance(a, Unperturbed)]
        rows = [self.measured(model, adversary) for adversary in (Unperturbed(), *others)]
        if others:
            names = ("none", *(type(adversary).__name__ for adversary in others))
            rows = [row | {"adversary": name} for row, name in zip(rows, names, strict=True)]
        return rows

    @torch.no_grad()
    def measured(self, model: LanguageModel, adversary: AbstractAdversary) -> Row:
        """One row of :meth:`evaluate`. The memory is that of the perturbed text."""
        total, seen, converged, calls = 0.0, 0, [], []
        for piece in read_through(model, adversary, self.laid_out(model), self.config.data.segment):
            total += float(piece.surprise.double().sum())
            seen += piece.surprise.numel()
            converged.append(piece.reading.figures.get("converged", math.nan))
            calls.append(piece.reading.figures.get("evaluations", math.nan))

        nats = total / seen
        data = self.config.data
        unit = "word" if data.unit == "words" else "character"
        return {
            "text": f"{data.family} ({data.part})",
            "tokens": seen,
            f"perplexity per {unit}": math.exp(min(nats, 700.0)),  # e^710 is no number any more
            f"bits per {unit}": nats / math.log(2.0),
            "converged": sum(converged) / len(converged),
            "evaluations per segment": sum(calls) / len(calls),
        }

    def laid_out(self, model: LanguageModel) -> Tensor:
        """The text that is measured on, (streams, n), in the model's own vocabulary: another text would number its
        words otherwise.
        """
        data = self.config.data
        tokens = model.vocabulary().encode(self.text)[: data.valid_limit]
        streams = min(data.streams, len(tokens) // 2)
        if streams < 1:
            fail("data", "at least two tokens to measure on", f"{len(tokens)}", error=InputError)
        return lay_out(tokens, streams).to(self.device)

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> LanguageModel:
        """The model of a checkpoint in evaluation mode; no text is needed."""
        return LanguageModel.of(checkpoint)
