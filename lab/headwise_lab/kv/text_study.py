"""Study kv: one text read under every KV-eviction strategy, each held against uniform windows of its context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headwise.errors import DataError, HeadwiseError
from headwise_lab.kv.study import TOKENS
from headwise_lab.report.kv.chapter import KvLayout
from headwise_lab.report.studies import ChapterLayout
from headwise_lab.store.record_types import Record

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Plan
    from headwise_lab.sweeps.schema import SweepFile


class TextStudy:
    """Trials of a language model on a text."""

    title: str = "Study KV"
    about: str = "KV eviction"
    model: str = "demo-pythia"
    keys: Sequence[str] = ("text", "kv_eviction")
    options: ClassVar[Mapping[str, str]] = {
        "text": "name", "tokens": "tokens", "profile": "profile", "scale": "scale", "permutations": "permutations",
    }  # fmt: skip
    layout: ChapterLayout = KvLayout()

    def takes(self, record: Record) -> bool:
        """It shows every text that was read, whatever the command."""
        return record.reads_text

    def wrong(self, sweep: SweepFile) -> tuple[str, str] | None:
        """Nothing: without strategies, a file compares the cases of the study."""
        return None

    def table(self, given: Mapping[str, Any]) -> dict[str, object]:
        """The text, as a table of a sweep file."""
        profile = given["profile"]
        told = {"name": given["text"], "tokens": _token_count(given["tokens"])}
        told |= {"scale": given["scale"], "permutations": given["permutations"]}
        return {"text": {**told, "profile": None if profile is None else str(profile)}}

    def plans(self, sweep: SweepFile, folder: Path | None, *, may_refuse: type[HeadwiseError]) -> Sequence[Plan]:
        """A plan per model."""
        from headwise_lab.kv.planning import planned_kv

        return planned_kv(sweep, folder, may_refuse=may_refuse)


def _token_count(tokens: Sequence[float] | None) -> int:
    """The tokens a text is scored on; raises DataError unless they are one whole number."""
    if not tokens:
        return TOKENS
    if len(tokens) > 1 or tokens[0] != int(tokens[0]) or tokens[0] < 2:
        told = ", ".join(f"{count:g}" for count in tokens)
        raise DataError(f"--tokens {told}: study kv scores one text of a whole number of tokens; give one, 2 or more")
    return int(tokens[0])
