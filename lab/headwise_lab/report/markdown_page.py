"""The report as Markdown; its score tables are in the layout that ``headwise report --table`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwise_lab.report.content import Content, Section, pictures
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid, markdown, markdown_line, markdown_text

if TYPE_CHECKING:
    from headwise_lab.report.kv.section import KvSection
    from headwise_lab.report.methods.section import MethodsSection

LEGEND = "≈ no difference to all heads, ↑ better, ↓ worse (p adjusted over the table), ★ recommended, - not measured."
METHODS_LEGEND = "≈ no difference to fastv, ↑ better, ↓ worse (p adjusted over the table), - not run."
KV_LEGEND = "≈ no difference, ↑ better, ↓ worse, - nothing to compare with."


def markdown_page(content: Content) -> str:
    """The whole page."""
    blocks = [f"# {markdown_text(content.title)}", _origin(content)]
    blocks += [f"> {markdown_line(warning)}" for warning in content.warnings]
    blocks += ["## Findings", _bullets(content.findings)]
    if content.sections:
        blocks += ["### Best configurations", "\n".join(_best(section) for section in content.sections)]
    for section in content.sections:
        blocks += _section(section)
    for part in content.methods.sections:
        blocks += _methods_section(part)
    for grid in filter(None, (content.methods.refusals, content.total_wins, *content.others)):
        blocks += [f"## {markdown_text(grid.title)}", markdown(grid), markdown_line(grid.caption)]
    for kv in content.kv.sections:
        blocks += _kv_section(kv)
    blocks += ["## How to read this"]
    blocks += [content.method] if content.selects_heads else []
    blocks += [content.methods.method] if content.methods.sections else []
    blocks += [content.kv.method] if content.kv.runs else []
    for grid in [content.records] * bool(content.trials) + [content.kv.records] * bool(content.kv.runs):
        blocks += [f"## {markdown_text(grid.title)}", markdown(grid)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _origin(content: Content) -> str:
    return f"{content.count} records. Rebuilt from results.jsonl and outcomes/ by `headwise report`."


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_line(sentence)}" for sentence in sentences) or "- There is nothing to compare."


def _best(section: Section) -> str:
    name = markdown_text(section.comparison.title)
    return "\n".join(f"- **{name}**: {markdown_text(line)}" for line in section.best)


def _section(section: Section) -> list[str]:
    blocks = [
        f"## {markdown_text(section.scores.title)}",
        markdown(section.scores),
        f"{markdown_line(section.scores.caption.rstrip('.'))}. {LEGEND}",
        *(_figure(figure) for figure in pictures(section)),
        _grid("Difference to all heads, paired ± SE", section.differences),
        markdown_line(section.differences.caption),
        "### Wins",
        _wins(section),
    ]
    if section.overlap:
        blocks += [_grid("Kept tokens", section.overlap), markdown_line(section.overlap.caption)]
    return blocks


def _methods_section(part: MethodsSection) -> list[str]:
    return [
        f"## {markdown_text(part.title)}",
        markdown(part.main),
        markdown_line(part.main.caption),
        METHODS_LEGEND if part.methods else "",
        *(_figure(figure) for figure in pictures(part)),
        *map(_captioned, part.others),
    ]


def _kv_section(part: KvSection) -> list[str]:
    return [
        f"## {markdown_text(part.title)}",
        markdown(part.main),
        f"{markdown_line(part.main.caption)} {KV_LEGEND}",
        *(_figure(figure) for figure in part.figures),
        *map(_captioned, part.others),
    ]


def _wins(section: Section) -> str:
    rows = len(section.comparison.rows)
    return "\n".join(
        f"- **{markdown_text(name)}**: best in {wins} of {rows} rows, alone in {sole}"
        for name, (wins, sole) in section.comparison.wins().items()
    )


def _grid(title: str, grid: Grid) -> str:
    return f"### {title}\n\n{markdown(grid)}"


def _captioned(grid: Grid) -> str:
    return f"{_grid(markdown_text(grid.title), grid)}\n\n{markdown_line(grid.caption)}".rstrip()


def _figure(figure: Figure) -> str:
    return f"![{markdown_text(figure.caption)}](figures/{figure.path.name})\n\n*{markdown_text(figure.caption)}*"
