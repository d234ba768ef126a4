"""Recounting the score tables of a document: cells, wins, ties, gaps, and claims that its figures contradict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.report.grouping import grouped
from headwise_lab.report.published.claims import Claims, read_claims
from headwise_lab.report.published.score_tables import ScoreRow, ScoreTable, read_tables, read_text


@attrs.frozen
class Noise:
    """In how many rows of a benchmark the gap from best to second is below one binomial standard error of the best."""

    table: str
    n: int
    below: int
    rows: int


@attrs.frozen
class Recount:
    """The tables of a document, counted.

    ``cells``: benchmark x token x head rows; ``filled``, ``missing``: figures in them. ``wins``: in how many rows a
    strategy is best, ties included; ``sole``: without ties. ``differences``: a sentence for each claim that is wrong.
    """

    tables: tuple[str, ...]
    cells: int
    filled: int
    missing: int
    missing_rows: tuple[str, ...]
    wins: Mapping[str, int]
    sole: Mapping[str, int]
    bold: Mapping[str, int]
    ties: tuple[str, ...]
    by_token: Mapping[str, Mapping[str, int]]
    by_head: Mapping[str, Mapping[str, int]]
    rows_by_token: Mapping[str, int]
    rows_by_head: Mapping[str, int]
    peaks: tuple[str, ...]
    differences: tuple[str, ...]
    noise: tuple[Noise, ...]
    has_baseline: bool
    has_control: bool

    def as_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return attrs.asdict(self)


def recount(path: Path, counts: Mapping[str, int] | None = None) -> Recount:
    """Read a document and count it again. ``counts``: benchmark -> number of questions, from which noise follows."""
    text = read_text(path)
    tables = read_tables(text, str(path))
    return count_tables(tables, read_claims(text, tables), counts or {})


def count_tables(tables: Sequence[ScoreTable], claims: Claims, counts: Mapping[str, int]) -> Recount:
    """The recount of the tables and of the claims about them."""
    rows = [row for table in tables for row in table.rows]
    columns = {name for table in tables for name in table.columns}
    by_token, by_head = grouped(rows, lambda row: row.token), grouped(rows, lambda row: row.head)
    cells = sum(len(table.rows) * len(table.columns) for table in tables)
    filled = sum(len(row.figures) for row in rows)
    return Recount(
        tables=tuple(table.name for table in tables),
        cells=len(rows),
        filled=filled,
        missing=cells - filled,
        missing_rows=tuple(_missing_rows(tables)),
        wins=_ranked(_wins(rows)),
        sole=_ranked(Counter(row.best[0] for row in rows if len(row.best) == 1)),
        bold=_ranked(Counter(name for row in rows for name in row.bold)),
        ties=tuple(
            f"{table.name} {row.label}: {' = '.join(row.best)}"
            for table in tables
            for row in table.rows
            if len(row.best) > 1
        ),
        by_token={token: _ranked(_wins(group)) for token, group in by_token.items()},
        by_head={head: _ranked(_wins(group)) for head, group in by_head.items()},
        rows_by_token={token: len(group) for token, group in by_token.items()},
        rows_by_head={head: len(group) for head, group in by_head.items()},
        peaks=tuple(_peaks(tables)),
        differences=tuple(_differences(tables, claims)),
        noise=tuple(_noise(table, counts[table.name]) for table in tables if table.name in counts),
        has_baseline=any(name.split(" ")[0] == "sum" for name in columns),
        has_control=any(name.split(" ")[0].split(":")[0] == "random" for name in columns),
    )


def _wins(rows: Iterable[ScoreRow]) -> Counter[str]:
    return Counter(name for row in rows for name in row.best)


def _ranked(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _missing_rows(tables: Sequence[ScoreTable]) -> list[str]:
    """The rows that one table lacks and another has."""
    grid = dict.fromkeys((row.token, row.head) for table in tables for row in table.rows)
    return [
        f"{table.name} {token}/{head}"
        for table in tables
        for token, head in grid
        if (token, head) not in {(row.token, row.head) for row in table.rows}
    ]


def _top(table: ScoreTable) -> tuple[Decimal, list[tuple[ScoreRow, str]]]:
    figures = [(row, name, figure.value) for row in table.rows for name, figure in row.figures.items()]
    top = max((value for _, _, value in figures), default=Decimal(0))
    return top, [(row, name) for row, name, value in figures if value == top]


def _peaks(tables: Sequence[ScoreTable]) -> list[str]:
    return [
        f"{table.name}: Token={row.token}, Head={row.head}, Strategy={name} → {top}"
        for table in tables
        for top, winners in [_top(table)]
        for row, name in winners
    ]


def _noise(table: ScoreTable, n: int) -> Noise:
    """The noise of a table whose figures are shares of ``n`` questions, in per cent; raises DataError for others."""
    rows = [row for row in table.rows if len(row.figures) > 1]
    below = 0
    for row in rows:
        best, second = sorted((float(figure.value) for figure in row.figures.values()), reverse=True)[:2]
        if not 0 <= best <= 100:
            raise DataError(f"{table.name} is not in percent ({best:g} in line {row.line}); give --n for shares only")
        share = best / 100
        below += best - second < 100 * math.sqrt(share * (1 - share) / n)
    return Noise(table.name, n, below, len(rows))


def _differences(tables: Sequence[ScoreTable], claims: Claims) -> list[str]:
    return [
        *_bold_differences(tables),
        *_row_differences(tables, claims),
        *_win_differences(tables, claims),
        *_peak_differences(tables, claims),
        *_share_differences(tables, claims),
    ]


def _bold_differences(tables: Sequence[ScoreTable]) -> list[str]:
    """Rows whose bold figures are not their best ones; none for documents without bold figures."""
    if not any(row.bold for table in tables for row in table.rows):
        return []
    return [
        f"line {row.line}, {table.name} {row.label}: bold is {_listed(row.bold)}, best is {_listed(row.best)}"
        for table in tables
        for row in table.rows
        if len(row.figures) > 1 and set(row.bold) != set(row.best)
    ]


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names) or "nothing"


def _row_differences(tables: Sequence[ScoreTable], claims: Claims) -> list[str]:
    rows = {(table.name, row.token, row.head): row for table in tables for row in table.rows}
    found = []
    for claim in claims.rows:
        row = rows.get((claim.table, claim.token, claim.head))
        best = row.best if row else ()
        if set(best) != set(claim.strategies):
            found.append(
                f"line {claim.line}, {claim.table} {claim.token}/{claim.head}: stated {_listed(claim.strategies)},"
                f" counted {_listed(best)}"
            )
    return found


def _win_differences(tables: Sequence[ScoreTable], claims: Claims) -> list[str]:
    """Claimed wins that differ from counted ones."""
    if not claims.wins:
        return []
    found = []
    for scope, stated in _win_scopes(tables, claims):
        counted = _wins(row for table in scope for row in table.rows)
        found += [
            f"line {claim.line}: {claim.strategy} is said to be best in {claim.wins} rows,"
            f" counted {counted[claim.strategy]}"
            for claim in stated
            if counted[claim.strategy] != claim.wins
        ]
        unnamed = {name: wins for name, wins in counted.items() if name not in {claim.strategy for claim in stated}}
        found += [f"{name} is best in {wins} rows and not named" for name, wins in unnamed.items()]
        total, rows = sum(claim.wins for claim in stated), sum(len(table.rows) for table in scope)
        if total != sum(counted.values()):
            found.append(
                f"the stated wins add up to {total}; {rows} rows with ties counted for each give"
                f" {sum(counted.values())}"
            )
    return found


def _win_scopes(tables: Sequence[ScoreTable], claims: Claims) -> list[tuple[list[ScoreTable], list[Any]]]:
    """(tables, claimed wins) that belong together: each table with the list below it, if all have one; else all."""
    starts = [table.rows[0].line if table.rows else 0 for table in tables]
    owners = [[claim for claim in claims.wins if start < claim.line < end]
              for start, end in zip(starts, [*starts[1:], 10**9], strict=True)]  # fmt: skip
    if len(tables) > 1 and all(owners):
        return [([table], stated) for table, stated in zip(tables, owners, strict=True)]
    return [(list(tables), list(claims.wins))]


def _peak_differences(tables: Sequence[ScoreTable], claims: Claims) -> list[str]:
    found = []
    for claim in claims.peaks:
        table = next((table for table in tables if table.name == claim.table), None)
        top, winners = _top(table) if table else (Decimal(0), [])
        if not winners:
            continue
        counted = [(row.token, row.head, name) for row, name in winners]
        if top != claim.value or (claim.token, claim.head, claim.strategy) not in counted:
            found.append(
                f"line {claim.line}: the best configuration of {claim.table} is said to be {claim.strategy} at"
                f" {claim.token}/{claim.head} with {claim.value}, counted {winners[0][1]} at {winners[0][0].label}"
                f" with {top}"
            )
    return found


def _share_differences(tables: Sequence[ScoreTable], claims: Claims) -> list[str]:
    found = []
    for claim in claims.shares:
        rows = [row for table in tables for row in table.rows if claim.covers(row)]
        wins = sum(claim.strategy in row.best for row in rows)
        if (wins, len(rows)) != (claim.wins, claim.of):
            found.append(
                f"line {claim.line}: {claim.strategy} is said to win {claim.wins}/{claim.of} at {claim.scope}, counted"
                f" {wins}/{len(rows)}"
            )
    return found
