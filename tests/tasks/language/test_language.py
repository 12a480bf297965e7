"""Texts as numbers, the task ``language``, and what its checkpoints write."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jiio.checks import JiioError
from jiio.models import ExplicitTransformer, TransformerModel
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import train
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.task import Language
from jiio.tasks.language.text import TextConfig, Vocabulary, draw_texts, lay_out, load_text, tokens_of
from jiio.tasks.language.writing import encoded, go_on
from loop_cases import dies, stopped

LINE = "the cat sat on the mat and the dog sat on the log\n"
SIZES = {"width": 8, "heads": 2, "inner": 12, "memory": 6}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training leaves a shorter sample."""
    monkeypatch.setattr("jiio.tasks.language.task.SAMPLE", 5)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINE * 40, encoding="utf-8")
    return path


def configuration(text: Path, output: Path, **over) -> LanguageConfig:
    data = {"family": f"file:{text}", "segment": 6, "segments": 2, "batch_size": 3, "streams": 2, "held_out": 0.1}
    values = {"task": "language", "output": str(output), "steps": 6, "checkpoint_every": 3, "threads": 1}
    values |= {"model": SIZES, "data": data | over.pop("data", {}), "solve": {"max_steps": 12}}
    return build(LanguageConfig, values | over)


# -- vocabularies


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_known_characters_come_back(words: str) -> None:
    vocabulary = Vocabulary.of(words + "ab", "characters", 1000)
    assert vocabulary.decode(vocabulary.encode(words).tolist()) == words
    assert vocabulary.unknown(words) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["the", "cat", "<unk>", "N", "\u00e9t\u00e9"]), max_size=5), max_size=5))
def test_words_come_back_with_their_lines(lines: list[list[str]]) -> None:
    words = "".join(" ".join(line) + "\n" for line in lines)
    vocabulary = Vocabulary.of(words + "a\n", "words", 100)
    again = vocabulary.decode(vocabulary.encode(words).tolist())
    assert tokens_of(again, "words")[: len(tokens_of(words, "words"))] == tokens_of(words, "words")


def test_a_vocabulary_keeps_the_most_frequent_and_packs_into_bytes() -> None:
    vocabulary = Vocabulary.of("b a a c c c\n" * 2, "words", 3)
    assert vocabulary.entries == ("c", "a", "<unk>")
    assert vocabulary.encode("a b c\n").tolist() == [1, 2, 0, 2]
    assert vocabulary.unknown("a b c\n") == ["<eos>", "b"]
    assert Vocabulary.unpacked(vocabulary.packed()) == vocabulary
    for broken in (b"{}", b"\xff", b'{"unit": "words", "entries": ["a"]}', b'{"unit": "words", "entries": 3}'):
        with pytest.raises(JiioError, match="vocabulary"):
            Vocabulary.unpacked(torch.tensor(list(broken), dtype=torch.uint8))


def test_pieces_are_a_function_of_seed_and_step() -> None:
    tokens, config = torch.arange(100), TextConfig(segment=4, segments=2, batch_size=5)
    a = draw_texts(tokens, config, seed=0, step=3)
    assert a.shape == (5, 9) and torch.equal(a, draw_texts(tokens, config, seed=0, step=3))
    assert not torch.equal(a, draw_texts(tokens, config, seed=0, step=4))
    assert bool((a.diff(dim=1) == 1).all())
    assert torch.equal(lay_out(torch.arange(11), 3), torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]]))


def test_the_parts_of_a_text_do_not_overlap(text: Path) -> None:
    whole = text.read_text(encoding="utf-8")
    parts = [load_text(TextConfig(f"file:{text}", held_out=0.1, part=part)) for part in ("valid", "test")]
    assert parts[0][0] == parts[1][0] and parts[0][0] + parts[0][1] + parts[1][1] == whole


def test_the_offline_text_needs_nothing() -> None:
    train_text, valid = load_text(TextConfig())
    assert len(train_text) > 100_000 and len(valid) > 10_000


@pytest.mark.parametrize(
    ("family", "train_words", "entries"), [("ptb", 929_589, 10_000), ("wikitext-2", 2_088_628, 33_278)]
)
def test_the_published_sizes_of_the_corpora(data_root: Path, family: str, train_words: int, entries: int) -> None:
    train_text, _ = load_text(TextConfig(family, "words"), data_root=data_root)
    tokens = tokens_of(train_text, "words")
    assert len(tokens) == train_words and len(set(tokens)) == entries


# -- the task

DEPTHS = [
    {"name": "Equilibrium"},
    {"name": "WeightTied", "options": {"layers": 3}},
    {"name": "WeightTied", "options": {"layers": 3, "sparsity": 0.5}},
    {"name": "Explicit", "options": {"layers": 2}},
]


@pytest.mark.parametrize("depth", DEPTHS, ids=["equilibrium", "tied", "sparse", "explicit"])
def test_training_lowers_the_perplexity(text: Path, tmp_path: Path, depth: dict) -> None:
    sizes = SIZES | {"inner": 64}
    config = configuration(text, tmp_path / "run", depth=depth, model=sizes, optimiser={"rate": 0.02})
    task = Language(config)
    torch.manual_seed(0)
    model = task.model()
    assert isinstance(model, LanguageModel)
    assert isinstance(model.body, ExplicitTransformer if depth["name"] == "Explicit" else TransformerModel)
    before = float(task.evaluate(model.eval())[0]["perplexity per character"])
    optimiser = torch.optim.Adam(model.train().parameters(), 0.02)
    for step in range(20):
        optimiser.zero_grad()
        task.loss(model, step)[0].backward()
        optimiser.step()
    row = task.evaluate(model.eval())[0]
    after = float(row["perplexity per character"])
    assert after < 0.7 * before
    assert row["bits per character"] == pytest.approx(math.log2(after))


def test_the_perplexity_is_that_of_the_probabilities(text: Path, tmp_path: Path) -> None:
    """Against one pass over the whole text where the memory is as long, from the probabilities of every token."""
    config = configuration(
        text, tmp_path / "run", model=SIZES | {"memory": 500}, solve={"atol": 1e-7, "rtol": 1e-6, "max_steps": 100}
    )
    task = Language(config)
    torch.manual_seed(0)
    model = task.model().eval()
    assert isinstance(model, LanguageModel)
    (row,) = task.evaluate(model)
    laid = lay_out(task.vocabulary.encode(task.text), 2)
    with torch.no_grad():
        logs = model.body(laid[:, :-1])[0]
    nats = -logs.gather(2, laid[:, 1:, None]).mean()
    assert row["tokens"] == laid[:, 1:].numel()
    assert row["perplexity per character"] == pytest.approx(float(nats.exp()), rel=1e-4)


@pytest.mark.parametrize("over", [{}, {"warm": {"steps": 4, "layers": 2}, "model": SIZES | {"dropout": 0.2}}])
def test_a_resumed_training_is_the_same_bit_for_bit(text: Path, tmp_path: Path, over: dict) -> None:
    straight = train(configuration(text, tmp_path / "a", **over))
    half = configuration(text, tmp_path / "b", **over)
    with pytest.raises(KeyboardInterrupt), stopped(Language, 4, dies):
        train(half)
    resumed = train(half, resume=True, report=lambda line: None)
    assert straight.step == resumed.step == 6
    assert all(torch.equal(straight.tensors[name], resumed.tensors[name]) for name in straight.tensors)


def test_the_vocabulary_travels_with_the_checkpoint(text: Path, tmp_path: Path) -> None:
    train(configuration(text, tmp_path / "run"))
    checkpoint = load(tmp_path / "run")
    rows = evaluate(checkpoint)
    assert "what the model wrote" in (tmp_path / "run" / "sample.txt").read_text(encoding="utf-8")
    text.write_text(LINE.translate(str.maketrans("tg", "gt")) * 40, encoding="utf-8")  # same letters, other frequencies
    (tmp_path / "run" / "step-00000006.safetensors").unlink()
    with pytest.raises(JiioError, match="another vocabulary"):
        train(configuration(text, tmp_path / "run"), resume=True, report=lambda line: None)
    onward = configuration(text, tmp_path / "next", steps=2, start=str(tmp_path / "run"))
    assert torch.equal(train(onward).tensors["model.words"], checkpoint.tensors["model.words"])
    model = LanguageModel.of(checkpoint)
    assert model.vocabulary().decode(model.vocabulary().encode("the cat").tolist()) == "the cat"
    assert evaluate(checkpoint)[0]["perplexity per character"] != rows[0]["perplexity per character"]


@pytest.mark.parametrize("name", ["Phantom", "Unrolled"])
def test_other_adjoints_train_near_the_implicit_gradient(text: Path, tmp_path: Path, name: str) -> None:
    """The cosine of the whole gradient; the Jacobian penalty, which is the same for all, is off."""
    slopes = []
    for choice in ({"name": "Implicit"}, {"name": name}):
        config = configuration(
            text, tmp_path, jacobian={"weight": 0.0}, solve={"adjoint": choice, "rtol": 1e-5, "max_steps": 40}
        )
        task = Language(config)
        torch.manual_seed(0)
        model = task.model()
        task.loss(model, 0)[0].backward()
        slopes.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float(torch.cosine_similarity(slopes[0], slopes[1], dim=0)) > (0.9 if name == "Phantom" else 0.999)


# -- writing


def test_greedy_text_is_the_first_choice_of_every_prefix(text: Path, tmp_path: Path) -> None:
    """With a memory as long as the text: each token against a solve of everything before it."""
    config = configuration(
        text, tmp_path / "run", model=SIZES | {"memory": 50}, solve={"atol": 1e-7, "rtol": 1e-6, "max_steps": 100}
    )
    task = Language(config)
    torch.manual_seed(0)
    model = task.model().eval()
    assert isinstance(model, LanguageModel)
    begin = encoded(model, "--start", "the cat")
    told = go_on(model, model.body.tokens.embed(begin[None]).detach(), 6, temperature=0.0)
    prefix = begin
    for token in told:
        with torch.no_grad():
            logs = model.body(prefix[None])[0][0, -1]
        logs[task.vocabulary.entries.index("<unk>")] = -math.inf
        assert int(logs.argmax()) == int(token)
        prefix = torch.cat([prefix, token[None]])


def test_the_commands(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("task: language\nsteps: 3\nthreads: 1\nwarm: {steps: 1}\n")
    run = str(tmp_path / "run")
    words = ["train", str(config), "--output", run, "--data.family", f"file:{text}", "--data.segment", "8"]
    words += ["--model.width", "8", "--model.heads", "2", "--model.inner", "8", "--data.batch_size", "2"]
    assert main(words) == 0
    assert main(["evaluate", run, "--json", str(tmp_path / "figures.json")]) == 0
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert row["perplexity per character"] > 1
    capsys.readouterr()
    assert main(["write", run, "--start", "the ", "--length", "12", "--seed", "3"]) == 0
    once = capsys.readouterr().out
    assert once.startswith("the ") and len(once) == 4 + 12 + 1
    assert main(["write", run, "--start", "the ", "--length", "12", "--seed", "3"]) == 0
    assert capsys.readouterr().out == once
    for bad, said in [
        (["--start", "the \u2603"], "--start"),
        (["--start", ""], "--start"),
        (["--length", "0"], "--length"),
        (["--temperature", "-1"], "--temperature"),
        (["--seed", "-1"], "--seed"),
        (["--speed", "1"], "--speed"),
    ]:
        assert main(["write", run, *bad]) == 2
        assert said.lstrip("-") in capsys.readouterr().err
    assert main(["write", str(tmp_path / "nothing")]) == 2
    assert main(["write", "restore-faces"]) == 2  # another task's
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": {"family": "ptp"}}, "ptb"),
        ({"data": {"family": "file:/no/such"}}, "cannot be opened"),
        ({"data": {"unit": "syllables"}}, "data.unit"),
        ({"data": {"segment": 0}}, "data.segment"),
        ({"data": {"segment": 5000}}, "at least"),
        ({"data": {"held_out": 0.6}}, "held_out"),
        ({"data": {"train_limit": 0}}, "train_limit"),
        ({"data": {"part": "train"}}, "data.part"),
        ({"data": {"vocabulary": 1}}, "vocabulary"),
        ({"model": {"heads": 3}}, "model.heads"),
        ({"model": {"norm": "both"}}, "model.norm"),
        ({"model": {"attention": "dot"}}, "model.attention"),
        ({"model": {"layers": 2}}, "no such key"),
        ({"model": {"cutoffs": [1000]}}, "cutoffs"),
        ({"depth": {"name": "Deep"}}, "no depth is called"),
        ({"depth": {"name": "WeightTied", "options": {"layers": 0}}}, "layers"),
        ({"depth": {"name": "WeightTied", "options": {"sparsity": 1.0}}}, "sparsity"),
        ({"depth": {"name": "Explicit", "options": {"layers": 99}}}, "fewer"),
        ({"depth": {"name": "Explicit"}, "warm": {"steps": 3}}, "warm.steps"),
        ({"solve": {"adjoint": {"name": "KKT"}}}, "solve.adjoint"),
        ({"solve": {"max_steps": 1}}, "max_steps"),
        ({"solve": {"solver": {"name": "Newton"}}}, "no solver is called"),
        ({"jacobian": {"share": 2.0}}, "jacobian.share"),
        ({"warm": {"layers": 0}}, "warm.layers"),
    ],
)
def test_bad_configurations_get_a_sentence(text: Path, tmp_path: Path, values: dict, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        Language(configuration(text, tmp_path / "run", **values))


def test_a_text_that_is_no_text(tmp_path: Path) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(JiioError, match="UTF-8"):
        Language(configuration(broken, tmp_path / "run"))
