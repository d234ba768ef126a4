"""``headwise report``: rebuilds a report from records, compares folders, or recounts a published table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headwise.errors import DataError
from headwise.output import answer
from headwise.printing import say
from headwise.reading import given_path
from headwise.verbosity import warn
from headwise_lab.commands.options import AsJson

BY = "model,benchmark,strategies,settings,budget"


Folders = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DIR [OTHER...]",
        help="Output folder or URL; several are compared with the first, and DIR:ID is one trial of it.",
    ),
]
By = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="With several: the fields by which trials are matched: model, benchmark, strategies, settings, budget,"
        " recipe, dtype, a hook, ...",
    ),
]
AllowDifferent = Annotated[
    bool,
    typer.Option(
        "--allow-different",
        help="With several: also compare trials with different questions or weights, on the questions they share.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        callback=given_path,
        metavar="PLACE",
        help="With several: a folder for all files, or one file: .html, .md, .csv or .tex.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out names if it is there.")]
Table = Annotated[
    Path | None,
    typer.Option(
        "--table", metavar="FILE", callback=given_path, help="Recount the Markdown tables of this file instead."
    ),
]
Counts = Annotated[
    str | None,
    typer.Option(
        "--n",
        metavar="NAME=N,...",
        help="With --table: questions per benchmark, or the tokens of KV tables, for noise.",
    ),
]
Title = Annotated[str | None, typer.Option("--title", help="Title of the report.")]


def report(
    folders: Folders = None,
    *,
    by: By = BY,
    allow_different: AllowDifferent = False,
    out: Out = None,
    overwrite: Overwrite = False,
    table: Table = None,
    n: Counts = None,
    title: Title = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild the report of an output folder from its records, compare several folders, or recount a table.

    One folder: writes report.html, report.md, tables/ and figures/ beside its records. Several folders: matches trials
    by what they were asked to do, and compares them question by question: difference to the first with its standard
    error, a bootstrap interval, an exact or permutation test, and Holm's correction over the table. `--by
    benchmark,budget` compares folders whose strategies differ. A table to recount has either scores by token budget and
    head count, or perplexity by effective context.
    """
    given = folders or []
    if bool(given) == (table is not None):
        raise DataError("report needs either the output folder of a run or --table FILE, one of the two")
    if n is not None and table is None:
        raise DataError("--n belongs to --table; records know their own number of questions")
    if len(given) < 2 and (out is not None or by != BY or allow_different):
        raise DataError("--out, --by and --allow-different belong to a comparison; give two folders or more")
    if table is not None:
        _recount(table, n, as_json)
    elif len(given) == 1:
        _build(given[0], title, as_json)
    else:
        from headwise_lab.commands.comparing import Comparing, compare

        words = [word.strip() for word in by.split(",") if word.strip()]
        compare(given, Comparing(words, allow_different, out, overwrite, title, as_json))


def _build(given: str, title: str | None, as_json: bool) -> None:
    from headwise_lab.report import build
    from headwise_lab.store.locations import is_local, place
    from headwise_lab.store.working_copy import at_hand

    folder = place(given)
    name = title if title or is_local(folder) else f"Headwise report: {folder.name}"
    with at_hand(folder, writes=True) as local:
        paths = build(local, name)

    def named(path: Path) -> str:
        return str(folder / path.relative_to(local).as_posix())

    if as_json:
        written = {
            "markdown": named(paths.markdown),
            "html": named(paths.html),
            "tables": [named(path) for path in paths.tables],
            "figures": [named(path) for path in paths.figures],
            "findings": list(paths.findings),
            "warnings": list(paths.warnings),
        }
        answer(json.dumps(written, ensure_ascii=False))
        return
    for warning in paths.warnings:
        warn(f"{warning.replace(str(local), str(folder))}")
    for finding in paths.findings:
        say(finding)
    say(
        f"Wrote {named(paths.markdown)}, {named(paths.html)}, {len(paths.tables)} tables and {len(paths.figures)}"
        " figures, each as PNG, SVG and PDF."
    )


def _recount(table: Path, n: str | None, as_json: bool) -> None:
    """Recount tables of scores (as LLaVA-FinePruner-Head's results), of perplexity by context (as those of the
    head-aware cache study), or both in one document.
    """
    from headwise_lab.report.published.context_page import context_lines
    from headwise_lab.report.published.context_recount import recount_contexts
    from headwise_lab.report.published.score_tables import has_score_tables, read_text

    tokens = int(n) if n and n.isascii() and n.isdigit() and int(n) > 0 else None
    contexts = recount_contexts(table, tokens)
    recounted: dict[str, object] = {}
    lines: list[str] = []
    if contexts is None or has_score_tables(read_text(table)):
        recounted, lines = _score_recount(table, {} if tokens else _question_counts(n))
    if contexts is not None:
        recounted["contexts"] = contexts.as_dict()
        lines += [*([""] if lines else []), *context_lines(contexts)]
    answer(json.dumps(recounted, ensure_ascii=False) if as_json else "\n".join(lines))


def _score_recount(table: Path, counts: dict[str, int]) -> tuple[dict[str, object], list[str]]:
    from headwise_lab.report.published.recount import recount
    from headwise_lab.report.published.recount_page import recount_lines

    counted = recount(table, counts)
    unknown = sorted(set(counts) - set(counted.tables))
    if unknown:
        raise DataError(f"--n names {', '.join(unknown)}, but the tables are {', '.join(counted.tables)}")
    return counted.as_dict(), recount_lines(counted)


def _question_counts(text: str | None) -> dict[str, int]:
    """``TextVQA=5000,GQA=12578`` as a mapping."""
    counts: dict[str, int] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        if not (name and number.isascii() and number.isdigit() and int(number) > 0):
            raise DataError(f"--n {part!r} is not of the form NAME=N with N questions, such as TextVQA=5000")
        counts[name] = int(number)
    return counts
