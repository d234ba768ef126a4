"""The report as Markdown. Its score tables have the layout that ``headwise report --table`` reads."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.chapter import Detail, Section
from headwise_lab.report.content import Content
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import markdown, markdown_line, markdown_text


def markdown_page(content: Content) -> str:
    """The whole page."""
    blocks = [f"# {markdown_text(content.title)}", _origin(content)]
    blocks += [f"> {markdown_line(warning)}" for warning in content.warnings]
    blocks += ["## Findings", _bullets(content.findings)]
    best = [_best(section) for section in content.sections if section.best]
    blocks += ["### Best configurations", "\n".join(best)] if best else []
    for section in content.sections:
        blocks += _section(section)
    for grid in content.closing:
        blocks += [f"## {markdown_text(grid.title)}", markdown(grid), markdown_line(grid.caption)]
    blocks += ["## How to read this", *content.methods]
    for grid in content.listed:
        blocks += [f"## {markdown_text(grid.title)}", markdown(grid)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _origin(content: Content) -> str:
    return f"{content.count} records. Rebuilt from results.jsonl and outcomes/ by `headwise report`."


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_line(sentence)}" for sentence in sentences) or "- There is nothing to compare."


def _best(section: Section) -> str:
    name = markdown_text(section.title)
    return "\n".join(f"- **{name}**: {markdown_text(line)}" for line in section.best)


def _section(section: Section) -> list[str]:
    caption = section.main.caption.rstrip(".")
    return [
        f"## {markdown_text(section.heading or section.title)}",
        markdown(section.main),
        " ".join(filter(None, [caption and f"{markdown_line(caption)}.", section.legend])),
        *map(_figure, section.drawn.files),
        *map(_detail, section.details),
    ]


def _detail(detail: Detail) -> str:
    listed = [f"- **{markdown_text(name)}**: {markdown_text(line)}" for name, line in detail.lines]
    shown = "\n".join(listed) if listed else markdown(detail.grid)
    blocks = (f"### {markdown_text(detail.heading)}", shown, markdown_line(detail.grid.caption))
    return "\n\n".join(filter(None, blocks))


def _figure(figure: Figure) -> str:
    return f"![{markdown_text(figure.caption)}](figures/{figure.path.name})\n\n*{markdown_text(figure.caption)}*"
