"""One self-contained HTML page: headings, paragraphs, tables and pictures, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #3b434b; --faint: #6a737d; --line: #e4e7ea; --paper: #fff;
        --shade: #f4f5f6; --ours: #f1f7f2; --error: #c62f2f; --warning: #b97f00; --good: #2d8a4e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #c3cad1; --faint: #98a2ab; --line: #30363d; --paper: #15181c; --shade: #23282e;
          --ours: #1d2b21; --error: #f07171; --warning: #e0ae4a; --good: #5cbf80; }
  img.paper { filter: brightness(.84); border-radius: 4px; }
}
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
p.lead { font-size: 1.05rem; color: var(--soft); }
p.small { color: var(--faint); font-size: .88rem; }
.boxes { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.6rem, max-content)); gap: .8rem;
         margin: 1.2rem 0 .6rem; }
.box { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1.1rem; }
.box b { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.box span { display: block; color: var(--faint); font-size: .87rem; line-height: 1.4; }
.notice { border-left: 4px solid; border-radius: 3px; padding: .45rem .9rem; margin: .6rem 0; background: var(--shade);
          overflow-wrap: anywhere; }
.notice.error { border-color: var(--error); } .notice.error b { color: var(--error); }
.notice.warning { border-color: var(--warning); } .notice.warning b { color: var(--warning); }
.notice.good { border-color: var(--good); }
.notice code { background: none; color: var(--faint); padding: 0; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
figcaption { color: var(--faint); font-size: .88rem; margin-top: .35rem; }
.compare { position: relative; display: inline-block; max-width: 100%; line-height: 0; --cut: 50%; }
.compare img.over { position: absolute; inset: 0; width: 100%; height: 100%; clip-path: inset(0 0 0 var(--cut)); }
.compare::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut); border-left: 2px solid #fff;
                  box-shadow: 0 0 3px #000; pointer-events: none; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
                 touch-action: pan-y; }
.compare:focus-within { outline: 2px solid #4c8bf5; outline-offset: 2px; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; }
.row figure { margin: .3rem 0; flex: 0 1 auto; max-width: 100%; }
.pair figure { max-width: calc(50% - .4rem); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .32rem .85rem .32rem 0; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child { text-align: left; }
.scroll th:first-child, .scroll td:first-child { white-space: normal; }
.facts th, .facts td { text-align: left; white-space: normal; font-weight: 400; vertical-align: top; }
tr.ours td { font-weight: 650; background: var(--ours); }
code { background: var(--shade); padding: .08rem .3rem; border-radius: 3px; font-size: .9em; }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; border-top: 1px solid var(--line);
         padding-top: .8rem; overflow-wrap: anywhere; }
"""
SLIDER = (
    '<input type="range" min="0" max="100" value="50" step="0.5" aria-label="how much of the first picture shows" '
    "oninput=\"this.parentNode.style.setProperty('--cut', this.value + '%')\">"
)


@dataclass
class Page:
    """Collects parts and renders them in order."""

    title: str
    lead: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph in small print."""
        self.parts.append(f'<p class="small">{html.escape(text)}</p>')

    def boxes(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """The figures that matter, large, side by side where there is room: each a number, what it is of, a remark."""
        lines = []
        for number, name, remark in figures:
            told = "".join(f"<span>{html.escape(text)}</span>" for text in (name, remark) if text)
            lines.append(f'<div class="box"><b>{html.escape(number)}</b>{told}</div>')
        self.parts.append(f'<div class="boxes">{"".join(lines)}</div>')

    def notice(self, kind: str, text: str, *, code: str = "") -> None:
        """A sentence that must be seen. kind: "error", "warning" or "good", which gives the colour; of the first two it
        is the first word as well. code: the name under which to look it up.
        """
        word = "" if kind == "good" else f"<b>{html.escape(kind)}</b>: "
        named = f" <code>{html.escape(code)}</code>" if code else ""
        self.parts.append(f'<div class="notice {html.escape(kind)}">{word}{html.escape(text)}{named}</div>')

    def picture(
        self, data: bytes, caption: str, *, kind: str = "png", pixels: bool = False, paper: bool = False
    ) -> None:
        """An embedded picture with a caption, which is its alternative text as well. pixels: enlarge without smoothing.
        paper: a drawing on white, which a dark page makes a little darker.
        """
        self.parts.append(_figure(data, caption, kind=kind, css="pixels" if pixels else "paper" if paper else ""))

    def row(self, pictures: Sequence[tuple[bytes, str]], *, width: int, pixels: bool = True) -> None:
        """Small PNG pictures with captions, side by side where there is room; each ``width`` CSS pixels wide."""
        look = "pixels" if pixels else ""
        figures = (_figure(data, caption, css=look, width=width) for data, caption in pictures)
        css = "row pair" if len(pictures) == 2 else "row"
        self.parts.append(f'<div class="{css}">{"".join(figures)}</div>')

    def compare(self, before: bytes, after: bytes, caption: str, *, kind: str = "png") -> None:
        """Two pictures of one size, one over the other; the line between them follows the pointer or the arrow keys."""
        over = f'<img class="over" src="{_inline(after, kind)}" alt="after">'
        pair = f'<img src="{_inline(before, kind)}" alt="before">{over}{SLIDER}'
        words = html.escape(caption)
        self.parts.append(f'<figure><div class="compare">{pair}</div><figcaption>{words}</figcaption></figure>')

    def table(self, rows: Sequence[Mapping[str, str | float]], *, ours: str = "") -> None:
        """Rows with the same keys; the one whose first cell is ``ours`` stands out; NaN and gaps stay empty."""
        heads = list(dict.fromkeys(key for row in rows for key in row))
        top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
        lines = []
        for row in rows:
            css = ' class="ours"' if ours and str(row.get(heads[0])) == ours else ""
            first, *others = (_cell(row.get(head)) for head in heads)
            # The name of a row may be a long call, PGD(steps=50, ...): it breaks where it is opened, not in a word.
            cells = [re.sub(r"\((?!\))", "(<wbr>", first), *others]
            lines.append(f"<tr{css}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")

        whole = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        self.parts.append(f'<div class="scroll">{whole}</div>')

    def facts(self, rows: dict[str, str]) -> None:
        """Names and values, one pair a line; long values wrap."""
        lines = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
        self.parts.append(f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>')

    def render(self, footer: str) -> str:
        """The whole page as text."""
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>\n"
            f'<h1>{html.escape(self.title)}</h1><p class="lead">{html.escape(self.lead)}</p>\n'
            + "\n".join(self.parts)
            + f"\n<footer>{html.escape(footer)}</footer></body></html>\n"
        )


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _figure(data: bytes, caption: str, *, kind: str = "png", css: str = "", width: int | None = None) -> str:
    look = f' class="{css}"' if css else ""
    size, look = ("", look) if width is None else (f' style="width: {width}px"', f'{look} style="width: 100%"')
    words = html.escape(caption)
    image = f'<img{look} src="{_inline(data, kind)}" alt="{words}">'
    return f"<figure{size}>{image}<figcaption>{words}</figcaption></figure>"


def _cell(value: str | float | None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if not isinstance(value, float):
        return html.escape(str(value))
    if abs(value) < 10:
        return f"{value:.3g}"
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
