"""The report as one HTML page that fetches nothing: figures, tables, findings, curve and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from jiio.checks import ArgumentError, fail

if TYPE_CHECKING:
    from .report import Report

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


def render(report: Report) -> str:
    """The page as text."""
    plot = _pyplot()
    threat = report.threat
    told = f"{threat['norm']} radius {threat['radius']}"
    if isinstance(threat["radius"], list) and "sizes" not in threat:
        told = f"{threat['norm']}, one radius per sample"
    parts = [
        f"<h1>{_safe(report.model['name'])} under attack</h1>",
        f"<p>{_safe(told)}, {report.total} samples, {report.model['parameters']:,} parameters.</p>",
        '<div class="figures">',
        _figure("clean accuracy", report.clean),
        _figure("robust accuracy", report.robust),
    ]
    if report.certified is not None:
        parts.append(_figure("certified", report.certified))
    if report.unconverged:
        parts.append(f'<div class="figure"><b>{report.unconverged}</b><span>without equilibrium</span></div>')
    parts += ["</div>", "<p class='small'>In brackets: the 95 % interval of Clopper and Pearson.</p>"]
    parts.append("<h2>The audit</h2>")
    if not report.findings:
        parts.append('<div class="finding good">Nothing speaks against these figures.</div>')
    for finding in report.findings:
        parts.append(
            f'<div class="finding {_safe(finding["severity"])}"><b>{_safe(finding["severity"])}</b>: '
            f"{_safe(finding['sentence'])} <code>{_safe(finding['name'])}</code></div>"
        )
    parts += ["<h2>Attacks</h2>", _table(report.attack_rows())]
    parts.append(
        "<p class='small'>Each attack saw what the ones above it left standing. Calls count whole batches.</p>"
    )
    if len(report.curve) > 1:
        parts += ["<h2>Robust accuracy by radius</h2>", _image(_curve(plot, report), "Robust accuracy by radius")]
    if report.solver:
        parts += ["<h2>The solver</h2>", _table(report.solver_rows())]
    if report.pictures.clean:
        parts += ["<h2>Broken samples</h2>", _image(_pictures(plot, report), "Image, attacked image, perturbation")]
        parts.append("<p class='small'>The perturbation is scaled to full contrast: red adds, blue takes away.</p>")
    settings = ", ".join(f"{name} {value}" for name, value in report.model["settings"].items())
    parts.append(f"<footer><p>Seed {report.seed}. {_safe(settings)}.</p></footer>")
    head = f'<meta charset="utf-8"><title>{_safe(report.model["name"])} under attack</title><style>{SHEET}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _safe(text: Any) -> str:
    return html.escape(str(text))


def _figure(name: str, share: Any) -> str:
    within = f"[{share.low:.1%}, {share.high:.1%}]"
    return f'<div class="figure"><b>{share.share:.1%}</b><span>{_safe(name)}<br>{within}</span></div>'


def _table(rows: Sequence[dict[str, str]]) -> str:
    heads = "".join(f"<th>{_safe(head)}</th>" for head in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{body}</table></div>'


def _image(data: bytes, words: str) -> str:
    return f'<img alt="{_safe(words)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _pyplot() -> Any:
    try:
        from matplotlib import figure
    except ImportError:
        fail("Report.to_html", "the package matplotlib", "no such package", "pip install matplotlib.", ArgumentError)
    return figure


def _png(drawing: Any) -> bytes:
    buffer = io.BytesIO()
    # No version or date in the file: the same report gives the same page.
    drawing.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _curve(plot: Any, report: Report) -> bytes:
    drawing = plot.Figure(figsize=(6.4, 3.6))
    axes = drawing.add_subplot()
    radius = report.threat["radius"]
    unit = radius if isinstance(radius, float) else 1.0
    at = [0.0, *(p["factor"] * unit for p in report.curve)]
    shares = [{"share": report.clean.share, "low": report.clean.low, "high": report.clean.high}]
    shares += [p["robust"] for p in report.curve]
    low, high = ([100 * s[name] for s in shares] for name in ("low", "high"))
    axes.fill_between(at, low, high, alpha=0.2, linewidth=0)
    axes.plot(at, [100 * s["share"] for s in shares], marker="o")
    axes.axvline(unit, color="0.6", linestyle=":")
    axes.set(ylim=(0, 101), xlim=(0, None), ylabel="robust accuracy, %")
    axes.set_xlabel(f"radius, {report.threat['norm']}" if isinstance(radius, float) else "multiple of the radius")
    axes.grid(alpha=0.3)
    return _png(drawing)


def _pictures(plot: Any, report: Report) -> bytes:
    gallery = report.pictures
    count = len(gallery.clean)
    drawing = plot.Figure(figsize=(1.5 * count, 4.8))
    axes = drawing.subplots(3, count, squeeze=False)
    for j in range(count):
        clean, attacked = gallery.clean[j].double(), gallery.attacked[j].double()
        low, high = float(torch.minimum(clean, attacked).min()), float(torch.maximum(clean, attacked).max())
        change = (attacked - clean).mean(0)
        largest = float(change.abs().max()) or 1.0
        for i, image in enumerate((clean, attacked)):
            shown = ((image - low) / max(high - low, 1e-12)).permute(1, 2, 0).numpy()
            axes[i, j].imshow(shown[:, :, 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)
        axes[2, j].imshow(change.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes[0, j].set_title(gallery.words[j], fontsize=9)
        for i in range(3):
            axes[i, j].set(xticks=[], yticks=[])
    for i, name in enumerate(("image", "attacked", "perturbation")):
        axes[i, 0].set_ylabel(name, fontsize=9)
    return _png(drawing)
