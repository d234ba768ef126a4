"""The claims of a document about its own tables, as far as they have a form that can be checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import attrs

from headwise_lab.report.published.score_tables import ScoreRow, ScoreTable, unescaped

_WINS = re.compile(r"[-*]\s+\*\*(?P<name>[^*]+)\*\*\s*[:：]\s*(?:在\s*(?P<zh>\d+)\s*个配置中|best in (?P<en>\d+)\b).*")
_PEAK = re.compile(
    r"[-*]\s+\*\*(?P<table>[^*]+)\*\*\s*[:：]\s*Tokens?=(?P<token>.+?),\s*Heads?=(?P<head>.+?),"
    r"\s*Strategy=(?P<name>.+?)\s*(?:→|->)\s*(?P<value>-?\d+(?:\.\d+)?)%?\s*"
)
_ROW = re.compile(
    r"[-*]\s+\*\*(?P<token>[^*/]+)/(?P<head>[^*/]+)\*\*\s*[:：]\s*(?P<names>[^(（]+?)\s*[(（][^)）]*[)）]\s*"
)
_HEADING = re.compile(r"#{1,6}\s+(?P<text>.+)")
_TOKEN = re.compile(r"Tokens?\s*(?P<sign>[=≥≤]|>=|<=)\s*(?P<count>\d+)", re.IGNORECASE)
_HEADS = re.compile(r"\*\*(?P<count>\d+)\s*heads?\*\*", re.IGNORECASE)
_SHARE = re.compile(r"(?P<wins>\d+)\s*/\s*(?P<of>\d+)\s*(?:个(?:基准|配置)最优|best\b)")
_BOLD = re.compile(r"\*\*(?P<text>[^*]+)\*\*")


@attrs.frozen
class StatedWins:
    """The claim that ``strategy`` is best in ``wins`` rows."""

    strategy: str
    wins: int
    line: int


@attrs.frozen
class StatedPeak:
    """The claim which configuration of a table is best."""

    table: str
    token: str
    head: str
    strategy: str
    value: Decimal
    line: int


@attrs.frozen
class StatedRow:
    """The claim which strategies are best in one row; several for a tie."""

    table: str
    token: str
    head: str
    strategies: tuple[str, ...]
    line: int


@attrs.frozen
class StatedShare:
    """The claim that ``strategy`` is best in ``wins`` of ``of`` rows with this token budget (and head count)."""

    strategy: str
    sign: str
    token: str
    head: str | None
    wins: int
    of: int
    line: int

    def covers(self, row: ScoreRow) -> bool:
        """Whether the claim is about a row."""
        if self.head is not None and row.head != self.head:
            return False
        if self.sign in ("=", ""):
            return row.token == self.token
        if not row.token.isdigit():
            return False
        return int(row.token) >= int(self.token) if self.sign in ("≥", ">=") else int(row.token) <= int(self.token)

    @property
    def scope(self) -> str:
        """The rows that the claim is about, in words."""
        return f"tokens {self.sign} {self.token}" + (f", {self.head} heads" if self.head else "")


@attrs.frozen
class Claims:
    """All checkable claims of a document."""

    wins: tuple[StatedWins, ...] = ()
    peaks: tuple[StatedPeak, ...] = ()
    rows: tuple[StatedRow, ...] = ()
    shares: tuple[StatedShare, ...] = ()


def read_claims(text: str, tables: Sequence[ScoreTable]) -> Claims:
    """Collect the claims. Prose without numbers in a known form is skipped."""
    names = {name for table in tables for name in table.columns}
    wins, peaks, rows, shares = [], [], [], []
    section, token = "", ("", "")
    for number, raw in enumerate(text.splitlines(), 1):
        line = unescaped(raw.strip())
        if heading := _HEADING.fullmatch(line):
            section, token = heading["text"], ("", "")
        if scope := _TOKEN.search(line):
            token = (scope["sign"], scope["count"])
        if match := _WINS.fullmatch(line):
            wins.append(StatedWins(match["name"], int(match["zh"] or match["en"]), number))
        elif match := _PEAK.fullmatch(line):
            value = Decimal(match["value"])
            peaks.append(StatedPeak(match["table"], match["token"], match["head"], match["name"], value, number))
        elif (match := _ROW.fullmatch(line)) and (table := _table_of(section, tables)):
            best = tuple(name.strip() for name in match["names"].split("/"))
            rows.append(StatedRow(table, match["token"].strip(), match["head"].strip(), best, number))
        elif token[1]:
            shares += _shares(line, token, names, number)
    return Claims(tuple(wins), tuple(peaks), tuple(rows), tuple(shares))


def _table_of(section: str, tables: Sequence[ScoreTable]) -> str | None:
    return next((table.name for table in tables if section.startswith(table.name)), None)


def _shares(line: str, token: tuple[str, str], names: set[str], number: int) -> list[StatedShare]:
    """The claims ``x/y best`` in a line; each is about the last strategy in bold before it."""
    heads = _HEADS.search(line)
    found = []
    for match in _SHARE.finditer(line):
        before = [bold["text"] for bold in _BOLD.finditer(line, 0, match.start()) if bold["text"] in names]
        if before:
            head = heads["count"] if heads else None
            found.append(StatedShare(before[-1], *token, head, int(match["wins"]), int(match["of"]), number))
    return found
