"""Language models: the task ``language``, a DEQ transformer or one of its explicit relatives, on any text."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio.checks import JiioError, fail
from jiio.models.sequence import AbstractSequenceModel, Memory
from tasks.checkpoint import Checkpoint, load
from tasks.depths import AbstractDepth, Segment, WeightTied
from tasks.embedding_adversary import AbstractAdversary, Unperturbed
from tasks.files import InputError
from tasks.language_config import LanguageConfig
from tasks.load import ConfigError
from tasks.seeds import generator
from tasks.text import Vocabulary, draw_texts, lay_out, load_text

SAMPLE = 200  # tokens that are written at the end of a training


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


class Language:
    """The task ``language`` of a training configuration."""

    def __init__(self, config: LanguageConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device, self.adversaries = config, torch.device(config.device), config.adversaries()
        train, self.text = load_text(config.data, data_root=data_root)
        self.vocabulary = self._vocabulary(train)
        self.packed = self.vocabulary.packed().to(self.device)
        self.tokens = self.vocabulary.encode(train)[: config.data.train_limit]
        needed = config.data.segments * config.data.segment + 1
        if len(self.tokens) < needed:
            came = f"{len(self.tokens)} {config.data.unit}"
            fail("data", f"a training text of at least {needed} {config.data.unit}", came, error=InputError)
        self.model()  # sizes that do not fit this vocabulary are told now

    def _vocabulary(self, train: str) -> Vocabulary:
        """Of the training text, or that of the weights to begin with."""
        config = self.config
        if config.start is None:
            return Vocabulary.of(train, config.data.unit, config.data.vocabulary)
        from tasks.commands import shipped

        other = load(shipped("start", config.start, "weights", ".safetensors"))
        if "model.words" not in other.tensors:
            fail("start", "weights of the task language", f"those of the task {other.config.task!r}", error=InputError)
        return Vocabulary.unpacked(other.tensors["model.words"])

    def model(self) -> nn.Module:
        return LanguageModel(self.config, self.vocabulary)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, LanguageModel)
        config = self.config
        if not torch.equal(model.words, self.packed):  # the text was changed between two parts of a training
            remedy = "Train into another --output."
            fail("data", "the text that the training began with", "one with another vocabulary", remedy, InputError)
        text = draw_texts(self.tokens, config.data, seed=config.seed, step=step).to(self.device)
        draw = float(torch.rand((), generator=generator(config.seed, "jacobian", step)))
        depth = WeightTied(config.warm.layers) if step < config.warm.steps else None
        penalty = config.jacobian.weight > 0 and draw < config.jacobian.share and depth is None
        losses, prices, figures, spent = [], [], {}, [0, 0]
        n = config.data.segment
        for adversary in self.adversaries if depth is None and self.adversaries else [Unperturbed()]:
            memory = None
            for i in range(config.data.segments):
                piece = text[:, i * n : (i + 1) * n + 1]
                found = adversary.find(model, model.embed(piece[:, :-1]), memory, piece[:, 1:])
                segment = model.hear(found.x, memory, depth=depth, penalty=penalty)
                losses.append(model.body.tokens.surprise(segment.state, piece[:, 1:]).mean())
                memory, figures = segment.memory, segment.figures
                spent = [spent[0] + found.evaluations, spent[1] + found.vjps]
                if segment.penalty is not None:
                    prices.append(segment.penalty)
        surprise = torch.stack(losses).mean()
        figures = {"perplexity": math.exp(min(float(surprise.detach()), 700.0)), **figures}
        if self.adversaries:
            figures |= {"adversary_evaluations": float(spent[0]), "adversary_vjps": float(spent[1])}
        if not prices:
            return surprise, figures
        price = torch.stack(prices).mean()
        return surprise + config.jacobian.weight * price, figures | {"jacobian": float(price.detach())}

    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """A text to look at: how the model goes on where the held-out text begins."""
        from tasks.writing import go_on

        assert isinstance(model, LanguageModel)
        vocabulary = model.vocabulary()
        begin = vocabulary.encode(self.text)[: self.config.data.segment].tolist()
        x = model.body.tokens.embed(torch.tensor([begin], device=self.device)).detach()
        source = generator(self.config.seed, "sample")
        told = go_on(model, x, SAMPLE, temperature=0.8, generator=source).tolist()
        text = f"{vocabulary.decode(begin)}\n---- what the model wrote ----\n{vocabulary.decode(told)}\n"
        return {"sample.txt": text.encode()}

    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
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
    def measured(self, model: LanguageModel, adversary: AbstractAdversary) -> dict[str, str | float]:
        """One row of :meth:`evaluate`. The memory is that of the perturbed text."""
        data = self.config.data
        # The model's own vocabulary: another text would number its words otherwise.
        tokens = model.vocabulary().encode(self.text)[: data.valid_limit]
        streams = min(data.streams, len(tokens) // 2)
        if streams < 1:
            fail("data", "at least two tokens to measure on", f"{len(tokens)}", error=InputError)
        laid = lay_out(tokens, streams).to(self.device)
        total, seen, memory, converged, calls = 0.0, 0, None, [], []
        for start in range(0, laid.shape[1] - 1, data.segment):
            piece = laid[:, start : start + data.segment + 1]
            found = adversary.find(model, model.embed(piece[:, :-1]), memory, piece[:, 1:])
            segment = model.hear(found.x, memory)
            memory = segment.memory
            total += float(model.body.tokens.surprise(segment.state, piece[:, 1:]).double().sum())
            seen += piece[:, 1:].numel()
            converged.append(segment.figures.get("converged", math.nan))
            calls.append(segment.figures.get("evaluations", math.nan))
        nats = total / seen
        unit = "word" if data.unit == "words" else "character"
        return {
            "text": f"{data.family} ({data.part})",
            "tokens": seen,
            f"perplexity per {unit}": math.exp(min(nats, 700.0)),
            f"bits per {unit}": nats / math.log(2.0),
            "converged": sum(converged) / len(converged),
            "evaluations per segment": sum(calls) / len(calls),
        }
