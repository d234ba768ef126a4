"""A figure as SVG inside a page: its colours follow the page, its parts follow the filters, its letters are letters."""

from __future__ import annotations

import re
from html import escape
from urllib.parse import parse_qsl
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from headwise_lab.report.page.canvas import DARK, GREY, GROUND, INK, LINES, MARK, SERIES, Figure

_NAMES = {INK: "ink", GREY: "soft", LINES: "line", GROUND: "ground", **{one: str(n) for n, one in enumerate(SERIES)}}
_SPACE = re.compile(r"^\{.*\}")
_COLOUR = re.compile("|".join(_NAMES))
_LINK = re.compile(r"(?<=#)[\w.-]+(?=\)|$)")
_FRACTION = re.compile(r"\d+\.\d{2,}")
_FONT = "font-family: 'DejaVu Sans'; "
_FACETS = ("budget", "heads", "records")


def theme() -> str:
    """The style of all figures of a page: a custom property for each colour, with other values on a dark ground."""
    light, dark = ("".join(f"--chart-{name}:{shown};" for name, shown in pairs) for pairs in (
        [(name, colour) for colour, name in _NAMES.items()], [(name, DARK[colour]) for colour, name in _NAMES.items()]
    ))  # fmt: skip
    return (
        f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"
        ".chart{display:block;max-width:100%;height:auto;stroke-linejoin:round}.chart text{font-family:inherit}"
        "@media (max-width:46rem){.chart{min-width:40rem}}"
    )


def inline(figure: Figure) -> Markup:
    """The SVG of a figure as an element of a page, named by its caption; its id is ``chart-`` and the file's name.

    Colours are ``var(--chart-NAME, #COLOUR)``: outside the page, the colour behind the comma holds.
    """
    root = ElementTree.parse(figure.svg).getroot()
    key = f"chart-{figure.path.stem}"
    _cleaned(root, key)
    for name in ("width", "height", "version", "id"):
        root.attrib.pop(name, None)
    wide = float(root.get("viewBox", "0 0 0 0").split()[2])
    head = {"id": key, "class": "chart", "role": "img", "aria-labelledby": f"{key}-title",
            "style": f"width:{wide * 4 / 3:.0f}px"}  # fmt: skip
    root.attrib.update(head)
    title = Element("title", {"id": f"{key}-title"})
    title.text = figure.caption
    root.insert(0, title)
    return Markup(_written(root))


def _cleaned(root: Element, key: str) -> None:
    """Take out what is for files alone; name and colour what stays as a page does."""
    for parent in list(root.iter()):
        for child in list(parent):
            if _SPACE.sub("", child.tag) in ("metadata", "style"):
                parent.remove(child)
        _named(parent, key)
        for name in ("style", "fill", "stroke"):
            if name in parent.attrib:
                parent.set(
                    name, _COLOUR.sub(_variable, parent.attrib[name].replace("font-family: 'DejaVu Sans'; ", ""))
                )
        for name in ("d", "x", "y"):
            if name in parent.attrib:
                parent.set(name, _FRACTION.sub(lambda number: f"{float(number[0]):.1f}", parent.attrib[name]))
        if parent.get("transform", "").startswith("rotate(-0 "):
            del parent.attrib["transform"]


def _named(element: Element, key: str) -> None:
    """Names that no other figure has; of a marked part, what it shows and its facets in place of a name."""
    name = element.attrib.pop("id", "")
    if name.startswith(MARK):
        told = dict(parse_qsl(name.partition("?")[2]))
        element.attrib.update({f"data-{kind}": told[kind] for kind in _FACETS if kind in told}, **{"class": "mark"})
        title = Element("title")
        title.text = told.get("name", "")
        element.insert(0, title)
    elif name and _SPACE.sub("", element.tag) in ("path", "clipPath", "linearGradient", "image"):
        element.set("id", f"{key}-{name}")
    for attribute in ("clip-path", "{http://www.w3.org/1999/xlink}href", "style"):
        value = element.get(attribute, "")
        if "#" in value and not value.startswith("data:") and ("url(" in value or attribute.endswith("href")):
            element.set(attribute, _LINK.sub(lambda found: f"{key}-{found[0]}", value))


def _variable(found: re.Match[str]) -> str:
    return f"var(--chart-{_NAMES[found[0]]}, {found[0]})"


def _written(element: Element) -> str:
    """An element as HTML reads it: names without a space, everything escaped."""
    name = _SPACE.sub("", element.tag)
    given = "".join(
        f' {_SPACE.sub("", key)}="{escape(" ".join(value.split()))}"' for key, value in element.attrib.items()
    )
    inside = escape((element.text or "").strip(), quote=False) + "".join(map(_written, element))
    return f"<{name}{given}>{inside}</{name}>" if name != "g" or inside else ""
