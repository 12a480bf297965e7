"""A tensor that is made says where: every factory names its device, is moved at once, or is excused here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTORIES = {
    *("randn", "rand", "randint", "randperm", "normal", "zeros", "ones", "full", "empty", "arange", "linspace"),
    *("logspace", "eye", "tensor", "scalar_tensor", "tril_indices", "triu_indices", "hann_window"),
    *("fftfreq", "rfftfreq"),
}

# Where tensors are the CPU's on purpose, and who moves them. A folder ends with a slash.
EXCUSED = {
    "tasks/images/": "data are read and drawn on the CPU; the tasks move their batches to config.device",
    "tasks/maps/": "operators are drawn on the CPU, and follow what they are applied to",
    "tasks/classify/data.py": "data; the task moves its batches",
    "tasks/classify/layouts.py": "data; the evaluation moves its batches to the model",
    "tasks/segment/scenes.py": "data; the task moves its batches",
    "tasks/segment/data.py": "data; the task moves its batches",
    "tasks/segment/metrics.py": "counts, brought to the CPU first",
    "tasks/meta/omniglot.py": "data; the task moves its episodes",
    "tasks/meta/glyphs.py": "data; the task moves its episodes",
    "tasks/meta/episodes.py": "data; the task moves its episodes",
    "tasks/language/text.py": "tokens; the task moves its texts",
    "tasks/restore/noise_white.py": "noise is estimated on the CPU, from a picture",
    "tasks/restore/noise_flat.py": "noise is estimated on the CPU, from a picture",
    "tasks/restore/tiles.py": "tiles are put together on the CPU: a picture may be larger than a GPU",
    "tasks/generate/fit/picture.py": "tiles are put together on the CPU",
    "tasks/commands/doctor.py": "looks at the CPU",
    "tasks/solving/ledger.py": "books of calls, kept on the CPU so that no step waits for a GPU",
    "jiio/models/": "parameters and buffers, which move with their module",
    "attacks/methods/search.py": "sizes of squares; the whole of them is moved when it is put together",
    "tasks/classify/victim.py": "mean and deviation, which Target moves",
    "tasks/generate/codes.py": "which codes a mixture begins with: indices",
    "tasks/generate/inversion/base.py": "starts, moved to the images in the next line",
    "tasks/generate/samples.py": "sets of images are compared on the CPU",
    "tasks/generate/task.py": "codes and orders of images on the CPU; the task moves its batches",
    "tasks/language/prompt.py": "numbers of tokens, moved where they become vectors",
    "tasks/language/writing.py": "numbers of tokens that were written",
    "tasks/restore/latent.py": "images on the CPU; the task moves its batches",
    "tasks/restore/prior.py": "noise on the CPU; the task moves its batches",
    "tasks/segment/task.py": "figures and colours of pictures, on the CPU",
    "tasks/solving/learning.py": "orders and choices among records on the CPU",
    "tasks/solving/starts.py": "one number, which takes part anywhere",
    "attacks/statistics.py": "counts, on the CPU",
    "attacks/dense/report.py": "counts, on the CPU",
    "tasks/classify/masks.py": "mean and deviation, which the target moves",
    "tasks/frame/parts.py": "figures, which are numbers",
    "tasks/frame/ranks.py": "exit codes, which are numbers",
    "tasks/frame/record.py": "numbers of a checkpoint",
    "tasks/restore/rounded.py": "how a file rounds, read on the CPU",
}


MOVERS = {"to", "tolist", "register_buffer", "Parameter"}  # buffers and parameters move with their module
NUMBERS = {"int", "float", "bool"}


def loose(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every ``torch.FACTORY(...)`` that does not say where, unless what it is in moves it at once."""
    moved: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if name in MOVERS | NUMBERS:
                moved |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        named = node.func.attr in FACTORIES and ast.unparse(node.func.value) in ("torch", "torch.fft")
        said = any(word.arg == "device" for word in node.keywords)
        if named and not said and id(node) not in moved:
            yield node.lineno, node.func.attr


def excuse(name: str) -> str | None:
    return next((key for key in EXCUSED if name == key or (key.endswith("/") and name.startswith(key))), None)


def files() -> list[Path]:
    return sorted(path for room in ("jiio", "attacks", "tasks") for path in (ROOT / room).rglob("*.py"))


def test_every_tensor_that_is_made_says_where() -> None:
    found, used = [], set()
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("jiio/attacks/", "jiio/tasks/")):
            continue
        for line, factory in loose(ast.parse(path.read_text(encoding="utf-8"))):
            key = excuse(name)
            used.add(key)
            if key is None:
                found.append(f"{name}:{line}: torch.{factory} names no device")
    assert not found, "\n".join(found)
    assert used - {None} == set(EXCUSED), f"excused for nothing: {set(EXCUSED) - used}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("torch.randn(3, generator=g)", 1),
        ("torch.randn(3, device=x.device)", 0),
        ("torch.randn(3, generator=g).to(x)", 0),
        ("(torch.rand(3) < keep).to(x)", 0),
        ("float(torch.rand((), generator=g))", 0),
        ("self.register_buffer('place', torch.arange(3))", 0),
        ("self.place = torch.arange(3)", 1),
        ("y = x + torch.zeros(3)", 1),
        ("x.new_zeros(3); torch.zeros_like(x)", 0),
    ],
)
def test_the_checker_sees_a_planted_factory(text: str, count: int) -> None:
    assert len(list(loose(ast.parse(text)))) == count
