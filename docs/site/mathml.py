"""Mathematics as MathML, made while the site is built: no script, no font and no other machine is needed to read it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from latex2mathml.exceptions import NumeratorNotFoundError

# Commands that the converter has not, by what it has.
OTHERS = {r"\arg": r"\operatorname{arg}", r"\langle": "⟨", r"\rangle": "⟩"}


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's door: the renderer, by the name that ``html_math_renderer`` asks for."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    app.config.html_math_renderer = "mathml"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.Element) -> None:
    """A formula in a line."""
    writer.body.append(formula(node.astext(), display="inline"))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.Element) -> None:
    """A formula on lines of its own, which scrolls where the page is narrow."""
    writer.body.append(f'<div class="math">{formula(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def formula(tex: str, *, display: str) -> str:
    """TeX as MathML. What cannot be converted ends the build: a formula that is shown as its source is no formula."""
    told = re.sub(r"\\(?:arg|langle|rangle)(?![A-Za-z])", lambda found: OTHERS[found[0]], tex.strip())
    try:
        made = convert(told, display=display)
    except (NumeratorNotFoundError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"this formula cannot be converted: {tex}") from error
    if re.search(r"<m[ion][^>]*>\\", made):  # a command that the converter does not know comes back as a name
        raise ValueError(f"a command in this formula is not known: {tex}")
    return made
