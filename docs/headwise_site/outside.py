"""What a built site would load from other hosts: nothing may."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

_LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
_LINKS = ("stylesheet", "icon", "preload", "preconnect", "modulepreload", "dns-prefetch", "manifest")
_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")
_DIAGRAM = re.compile(r"```mermaid\n.*?^```\n", re.DOTALL | re.MULTILINE)


def loads(folder: str) -> list[str]:
    """``page: address`` of everything that the pages and style sheets of a built site load from elsewhere."""
    found = []
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            addresses = _in_page(text) if path.suffix == ".html" else _STYLE.findall(text)
            found += [f"{path.relative_to(folder)}: {address}" for address in addresses]
    return found


def without_diagrams(markdown: str) -> str:
    """Mermaid diagrams are drawn by a script from elsewhere, so a page says where its picture can be seen instead."""
    told = "The picture is drawn where Mermaid is at hand, such as in an editor that opens the file.\n"
    return _DIAGRAM.sub(told, markdown)


def _in_page(text: str) -> list[str]:
    reader = _Reader()
    reader.feed(text)
    return [one for one in reader.addresses if re.match(r"(https?:)?//", one)] + _STYLE.findall("".join(reader.styles))


class _Reader(HTMLParser):
    """Collects the addresses of what a page loads, and its style rules."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One tag with its attributes."""
        given = dict(attrs)
        self._in_style = tag == "style"
        if tag == "link" and (given.get("rel") or "") in _LINKS:
            self.addresses.append(given.get("href") or "")
        self.addresses.append(given.get(_LOADED.get(tag, ""), "") or "")
        self.styles.append(given.get("style") or "")

    def handle_data(self, data: str) -> None:
        """Text between tags; of style elements the rules."""
        if self._in_style:
            self.styles.append(data)
