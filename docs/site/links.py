"""Whether every link of a built site leads somewhere: pages, pictures and anchors inside it."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Links(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.anchors.add(value)
            if value and name in ("href", "src"):
                self.targets.append(value)


def read(page: Path) -> Links:
    """The links of a page."""
    found = Links()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def dead(site: Path) -> list[str]:
    """A line for every link inside the site that leads nowhere; other people's sites are not asked."""
    files = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]  # templates of the theme
    pages = {page.resolve(): read(page) for page in files}
    return [line for page, links in pages.items() for line in lost(page, links, pages, site.resolve())]


def lost(page: Path, links: Links, pages: dict[Path, Links], site: Path) -> Iterator[str]:
    """The dead links of one page."""
    for target in dict.fromkeys(links.targets):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        to = to / "index.html" if to.is_dir() else to
        where = page.relative_to(site)

        if not to.exists():
            yield f"{where} links to {target}, which is not there"
        elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors:
            yield f"{where} links to {target}, an anchor that is not there"
