"""The page: every part is there once, nothing is fetched, and no text becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from jiio.outputs.page import Page

EVIL = "<script>alert('&\"')</script>"
VOID = {"meta", "img", "input", "wbr"}


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def everything(text: str) -> str:
    page = Page(text, text)
    page.heading(text)
    page.paragraph(text)
    page.note(text)
    page.boxes([(text, text, text), ("1", text, "")])
    page.notice("error", text, code=text)
    page.notice("good", text)
    page.picture(b"x", text)
    page.row([(b"x", text), (b"y", text)], width=9)
    page.compare(b"x", b"y", text)
    page.table([{text: text, "b": 1.0}], ours=text)
    page.facts({text: text})
    return page.render(text)


def read(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    return parser


def test_no_text_becomes_markup() -> None:
    page = everything(EVIL)
    parser = read(page)
    assert not parser.open and "<script" not in page
    assert "".join(parser.text).count(EVIL) == 22


def test_nothing_is_fetched() -> None:
    page = everything("word")
    assert not re.search(r"https?:|@import|url\(", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]+)"', page))


@pytest.mark.parametrize("kind", ["error", "warning", "good"])
def test_a_notice_has_its_colour_by_day_and_by_night(kind: str) -> None:
    page = Page("a", "b")
    page.notice(kind, "text", code="name")
    text = page.render("")
    assert f'<div class="notice {kind}">' in text and text.count(f"--{kind}: #") == 2
    assert ("<b>" in page.parts[0]) == (kind != "good") and "<code>name</code>" in page.parts[0]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.12345, "0.123"), (9.0, "9"), (12.0, "12"), (12.345, "12.35"), (-3e-9, "-3e-09")]
)
def test_numbers_in_a_table(value: float, shown: str) -> None:
    page = Page("a", "b")
    page.table([{"a": "x", "b": value, "c": float("nan"), "d": float("inf")}])
    assert f"<td>x</td><td>{shown}</td><td></td><td></td>" in page.parts[0]
