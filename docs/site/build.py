"""Build the documentation site, warnings as errors, and follow every link in it.

    python docs/site/build.py [FOLDER]        (default: site/; needs the extra `docs`)

The pages stay as GitHub shows them: they are copied into a temporary folder with the reference and the tree of pages
beside them, and Sphinx reads that.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorials"))

import links
import notebooks
import reference

ROOT = Path(__file__).parents[2]
# The pages of results, one for each room.
ROOMS = (
    *("engine", "metric", "steps", "honesty", "gradients", "training", "photographs", "restore"),
    *("attacks", "evaluator", "robustness", "generate", "strange", "meta", "segment", "language", "federated"),
)
# The tree: sections and their pages. Pages that nobody has named here stand in the last section.
TREE = {
    "Start": ("start", "gallery", "tutorials"),
    "Guide": (
        *("choosing", "cells", "restoring", "physics", "attacks", "audit", "defences"),
        *("generate", "inverting", "strange", "meta", "language"),
        *("tasks", "parts", "rooms", "machines", "federated", "recipes"),
    ),
    "Reference": (
        "api",
        "models",
        "examples",
        "examples-attacks",
        *(f"reference/{package}" for package in reference.LEADS),
    ),
    "Background": ("mathematics", "gradients", "sources", "design", "recording", "decisions", "limits"),
    "Results": ("results", *(f"results/{room}" for room in ROOMS)),
    "Extending": ("CONTRIBUTING", "CHANGELOG"),
}
MARKS = ("index.html", "objects.inv", "searchindex.js")  # what a site has, and hardly anything else
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")  # pages that stand above docs/


def main(argv: list[str]) -> int:
    """Exit code 0 where all is well, 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site", help="where the site is written")
    folder = parser.parse_args(argv).folder
    if not replaceable(folder):
        parser.error(f"folder: expected a new one, or a site made here before, got {folder}, which holds other files.")
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError as error:
        parser.error(f"the package {error.name} is missing. Install what builds the site: pip install -e '.[docs]'")

    with tempfile.TemporaryDirectory() as work:
        pages, made = Path(work) / "pages", Path(work) / "site"
        set_up(pages)
        command = ["-b", "html", "-W", "--keep-going", "-q", "-c", str(Path(__file__).parent), str(pages), str(made)]
        if build_main(command):
            return 1
        dead = links.dead(made)
        print(*dead, sep="\n", file=sys.stderr)
        if dead:
            return 1
        put(made, folder)
    print(f"{len(list(folder.rglob('*.html')))} pages, no warning, no dead link: {folder / 'index.html'}")
    return 0


def replaceable(folder: Path) -> bool:
    """Whether nothing but an older site stands there."""
    if not folder.exists():
        return True
    return folder.is_dir() and (not any(folder.iterdir()) or all((folder / name).is_file() for name in MARKS))


def put(made: Path, folder: Path) -> None:
    """The new site in the place of the old one, which stays until the new one is there whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside_it:
        new = Path(beside_it) / "new"
        shutil.copytree(made, new, ignore=shutil.ignore_patterns(".doctrees", ".buildinfo"))
        if folder.exists():
            folder.rename(Path(beside_it) / "old")
        new.rename(folder)


def set_up(pages: Path) -> None:
    """The folder that Sphinx reads: pages, pictures, reference and tree."""
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("site", "__pycache__"))
    for name in OUTSIDE:
        shutil.copy(ROOT / name, pages / name)
    for page in pages.glob("*.md"):
        page.write_text(beside(page.read_text(encoding="utf-8")), encoding="utf-8")
    reference.write(pages / "reference")
    set_up_tutorials(pages)

    # A page for every section, and the sections under the first page.
    named = {name for names in TREE.values() for name in names}
    others = sorted(page.relative_to(pages).with_suffix("").as_posix() for page in pages.rglob("*.md"))
    others = [name for name in others if name != "index" and not name.startswith("read/") and name not in named]
    tree = TREE | {"Background": (*TREE["Background"], *others)}
    for title, names in tree.items():
        there = [name for name in names if any((pages / f"{name}{end}").exists() for end in (".md", ".rst"))]
        (pages / f"section-{title.lower()}.md").write_text(f"# {title}\n\n{toctree(there)}", encoding="utf-8")
    index = pages / "index.md"
    hidden = toctree([f"section-{title.lower()}" for title in tree], hidden=True)
    index.write_text(f"{index.read_text(encoding='utf-8')}\n{hidden}", encoding="utf-8")


def set_up_tutorials(pages: Path) -> None:
    """Every tutorial as a page, under the page that lists them; the folder of scripts stays what is linked to."""
    folder = pages / "read"
    folder.mkdir()
    for script in notebooks.scripts():
        text = notebooks.page(script.read_text(encoding="utf-8"), script.stem)
        (folder / f"{script.stem}.md").write_text(text, encoding="utf-8")
    listed = pages / "tutorials.md"
    names = [f"read/{script.stem}" for script in notebooks.scripts()]
    listed.write_text(f"{listed.read_text(encoding='utf-8')}\n{toctree(names)}", encoding="utf-8")


def beside(text: str) -> str:
    """A page whose links to pages above docs/, or from there into docs/, lead to where they stand now."""
    text = re.sub(r"\]\(\.\./(" + "|".join(map(re.escape, OUTSIDE)) + r")", r"](\1", text)
    return re.sub(r"\]\(docs/", "](", text)


def toctree(names: list[str], *, hidden: bool = False) -> str:
    """The directive."""
    lines = ["```{toctree}", ":maxdepth: 2", *([":hidden:"] if hidden else []), "", *names, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
