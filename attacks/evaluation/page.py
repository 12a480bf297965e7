"""The report as one HTML page that fetches nothing: figures, tables, findings, curve and pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import drawings
from .gallery import Gallery

Row = dict[str, str]


@dataclass(frozen=True)
class Content:
    """What the page shows, in plain rows and in the order of its fields. figures: each a number in words, what it is
    of, and what is to be said about it. curve: None where there is one radius alone.
    """

    title: str
    lead: str
    figures: list[tuple[str, str, str]]
    findings: list[dict[str, Any]]
    attacks: list[Row]
    curve: drawings.Decline | None
    solver: list[Row]
    pictures: Gallery
    footer: str


SHEET = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2126; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 }
.figure { border: 1px solid #dfe3e8; border-radius: 8px; padding: .7rem 1.1rem; min-width: 9rem }
.figure b { display: block; font-size: 1.7rem; line-height: 1.2 } .figure span { color: #626c77; font-size: .87rem }
.finding { border-left: 4px solid; padding: .35rem .8rem; margin: .6rem 0; background: #f7f8f9 }
.error { border-color: #c62f2f } .warning { border-color: #d39a1b } .good { border-color: #2d8a4e }
.finding code { color: #626c77 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .92rem }
td, th { text-align: right; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e6e9ec; white-space: nowrap }
td:first-child, th:first-child { text-align: left; white-space: normal } img { max-width: 100% }
p.small, footer { color: #626c77; font-size: .87rem }
"""


def render(content: Content) -> str:
    """The page as text."""
    parts = [
        f"<h1>{_safe(content.title)}</h1>",
        f"<p>{_safe(content.lead)}</p>",
        '<div class="figures">',
        *(_figure(*figure) for figure in content.figures),
        "</div>",
        "<p class='small'>In brackets: the 95 % interval of Clopper and Pearson.</p>",
        "<h2>The audit</h2>",
    ]
    if not content.findings:
        parts.append('<div class="finding good">Nothing speaks against these figures.</div>')
    for finding in content.findings:
        parts.append(
            f'<div class="finding {_safe(finding["severity"])}"><b>{_safe(finding["severity"])}</b>: '
            f"{_safe(finding['sentence'])} <code>{_safe(finding['name'])}</code></div>"
        )
    parts += ["<h2>Attacks</h2>", _table(content.attacks)]
    parts.append(
        "<p class='small'>Each attack saw what the ones above it left standing. Calls count whole batches.</p>"
    )
    if content.curve is not None:
        words = "Robust accuracy by radius"
        parts += [f"<h2>{words}</h2>", _image(drawings.decline(content.curve), words)]
    if content.solver:
        parts += ["<h2>The solver</h2>", _table(content.solver)]
    if content.pictures.clean:
        picture = _image(drawings.broken(content.pictures), "Image, attacked image, perturbation")
        parts += ["<h2>Broken samples</h2>", picture]
        parts.append("<p class='small'>The perturbation is scaled to full contrast: red adds, blue takes away.</p>")
    parts.append(f"<footer><p>{_safe(content.footer)}</p></footer>")
    head = f'<meta charset="utf-8"><title>{_safe(content.title)}</title><style>{SHEET}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _safe(text: Any) -> str:
    return html.escape(str(text))


def _figure(number: str, name: str, within: str) -> str:
    told = f"{_safe(name)}<br>{within}" if within else _safe(name)
    return f'<div class="figure"><b>{number}</b><span>{told}</span></div>'


def _table(rows: Sequence[dict[str, str]]) -> str:
    heads = "".join(f"<th>{_safe(head)}</th>" for head in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{body}</table></div>'


def _image(data: bytes, words: str) -> str:
    return f'<img alt="{_safe(words)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
