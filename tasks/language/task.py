"""Language models: the task ``language``, a DEQ transformer or one of its explicit relatives, on any text."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from jiio.checks import fail
from jiio.outputs.seeds import generator
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.task import AbstractTask

from .adversaries import AbstractAdversary, Unperturbed
from .config import LanguageConfig
from .depths import WeightTied
from .model import LanguageModel
from .text import Vocabulary, draw_texts, lay_out, load_text

SAMPLE = 200  # tokens that are written at the end of a training


class Language(AbstractTask):
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
        from jiio.tasks.frame.shipped import shipped

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
                found = adversary.find(model.body, model.embed(piece[:, :-1]), memory, piece[:, 1:])
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
        from .writing import go_on

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
            found = adversary.find(model.body, model.embed(piece[:, :-1]), memory, piece[:, 1:])
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
