"""One self-contained HTML page: headings, paragraphs, tables and pictures, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1b1f24; background: #fff;
       max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
p.lead { font-size: 1.05rem; color: #3b434b; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
figcaption { color: #6a737d; font-size: .88rem; margin-top: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .32rem .85rem .32rem 0; text-align: right; border-bottom: 1px solid #e4e7ea; white-space: nowrap; }
th { font-weight: 600; color: #3b434b; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { font-weight: 650; background: #f1f7f2; }
code { background: #f4f5f6; padding: .08rem .3rem; border-radius: 3px; font-size: .9em; }
footer { margin-top: 3rem; color: #6a737d; font-size: .85rem; border-top: 1px solid #e4e7ea; padding-top: .8rem; }
"""


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

    def picture(self, data: bytes, caption: str, *, kind: str = "png", pixels: bool = False) -> None:
        """An embedded PNG or GIF with a caption, which is its alternative text as well."""
        code = base64.b64encode(data).decode()
        css = ' class="pixels"' if pixels else ""
        words = html.escape(caption)
        image = f'<img{css} src="data:image/{kind};base64,{code}" alt="{words}">'
        self.parts.append(f"<figure>{image}<figcaption>{words}</figcaption></figure>")

    def table(self, rows: Sequence[dict[str, str | float]], *, ours: str = "") -> None:
        """Rows with the same keys; the one whose first cell is ``ours`` stands out; NaN and gaps stay empty."""
        heads = list(dict.fromkeys(key for row in rows for key in row))
        top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
        lines = []
        for row in rows:
            css = ' class="ours"' if ours and str(row.get(heads[0])) == ours else ""
            lines.append(f"<tr{css}>" + "".join(f"<td>{_cell(row.get(head))}</td>" for head in heads) + "</tr>")
        self.parts.append(
            f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        )

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


def _cell(value: str | float | None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float):
        return (
            f"{value:.0f}"
            if value == int(value) and abs(value) >= 10
            else f"{value:.3g}"
            if abs(value) < 10
            else f"{value:.2f}"
        )
    return html.escape(str(value))
