"""What builds the documentation site, as far as it needs no Sphinx: reference, docstrings, links."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from parts_of_site import part

reference, docstrings, links, build = (part(name) for name in ("reference", "docstrings", "links", "build"))
telling = part("telling")
GROUPS = reference.groups()
NAMES = [(group.package, name) for group in GROUPS for name in group.names]


def thing_of(package: str, name: str):
    return getattr(importlib.import_module(package), name)


def test_every_public_name_has_one_place_in_the_reference() -> None:
    assert len(NAMES) == len(set(NAMES)) > 150
    assert {package for package, _ in NAMES} == {"jiio", "jiio.models", "jiio.attacks", "jiio.tasks"}
    assert len({group.file for group in GROUPS}) == len(GROUPS)


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda v: v)
def test_every_public_name_has_a_docstring_with_shapes(package: str, name: str) -> None:
    """Written by somebody, a sentence at least; what takes or gives tensors says their shapes."""
    thing = thing_of(package, name)
    if not callable(thing):
        pytest.skip("a table; its page shows it")
    text = telling.words(thing)
    assert len(text) > 12 and re.search(r"[.:]", text), "no sentence"
    if inspect.isfunction(thing) and "Tensor" in str(inspect.signature(thing)):
        assert re.search(r"\([A-Z](?:, [^)]*)?,?\)|batch first|tree|images|shape", text), "no shape"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The norm |x|_1 of x*.", ["The norm \\|x\\|\\_1 of x\\*."]),
        ("As ``a|b`` and :func:`jiio.solve`.", ["As ``a|b`` and :func:`jiio.solve`."]),
        ("A name, `steps`.", ["A name, ``steps``."]),
        ("low: the least. high: the most.", ["- ``low``: the least.", "- ``high``: the most."]),
        ("Do it. low: the least. Note: no name.", ["Do it.", "- ``low``: the least. Note: no name."]),
        ("    z = f(z, x)", ["::", "    z = f(z, x)"]),
        ("Errors: ArgumentError.", ["**Errors.** ArgumentError."]),
        (
            "Args:\n    low: the least\n        of all\n    high: the most",
            ["**Parameters**", "- ``low``: the least of all", "- ``high``: the most"],
        ),
        ("Words.\n    x = 1\nMore words.", ["Words.", "::", "    x = 1", "More words."]),
    ],
)
def test_docstrings_become_markup(text: str, shown: list[str]) -> None:
    def bounds(low: float, high: float) -> None: ...

    lines = text.split("\n")
    docstrings.process(None, "function", "bounds", bounds, None, lines)
    assert [line for line in lines if line] == shown


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#lost">2</a><a href="c.html">3</a>'
        '<a href="https://example.org/x">4</a><a href="#lost">5</a><img src="p.png"><a href="sub/">6</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text("")
    found = [line.split(" links to ")[1].split(",")[0] for line in links.dead(tmp_path)]
    assert found == ["b.html#lost", "c.html", "#lost", "p.png"]


def site(folder: Path, word: str) -> Path:
    folder.mkdir()
    for name in build.MARKS:
        (folder / name).write_text(word)
    return folder


def test_a_site_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    new, old, foreign = site(tmp_path / "new", "new"), site(tmp_path / "old", "old"), tmp_path / "mine"
    foreign.mkdir()
    (foreign / "index.html").write_text("mine")
    assert not build.replaceable(foreign) and not build.replaceable(foreign / "index.html")
    assert all(build.replaceable(folder) for folder in (old, tmp_path / "absent"))
    build.put(new, old)
    assert {(old / name).read_text() for name in build.MARKS} == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new", "old"]


def test_what_is_not_a_site_is_refused_before_anything_is_built(tmp_path: Path, capsys) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SystemExit) as end:
        build.main([str(tmp_path)])
    assert end.value.code == 2 and "folder: expected a new one" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").read_text() == "dear"
