"""Finds the study that reports a record, among the entry points of the group ``headwise.study``.

A record names its study. Where that study is not installed, or the record names none (it came from a run, a harness or
a search), the first study that takes such records reports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs

from headwise.blame import blamed, guarded, owned
from headwise.errors import ContractError, HeadwiseError
from headwise.reading import shown
from headwise.registry import configured, distribution, installed, only, owner_of
from headwise.text import StrategyText
from headwise_lab.report.chapter import Chapter, ReadFolder, Section
from headwise_lab.store.record_types import Record

GROUP = "study"
OURS = "headwise"
"""The distribution whose studies a bare name in a record means, whatever else is installed."""


class ChapterLayout(Protocol):
    """How a report shows records; studies that share one layout share a chapter."""

    def chapter(self, found: ReadFolder, mine: Sequence[Record]) -> Chapter:
        """The chapter on the records ``mine`` of the folder ``found``; some of them may be refused or failed."""
        ...


@runtime_checkable
class Reported(Protocol):
    """The part of a study that reports use; the whole protocol is ``headwise_lab.sweeps.study.Study``."""

    @property
    def layout(self) -> ChapterLayout:
        """The layout that shows its records."""
        ...

    def takes(self, record: Record) -> bool:
        """Whether this study reports a record that names no installed study."""
        ...


def names() -> list[str]:
    """The names of the installed studies, sorted; none of them is imported."""
    return list(installed(GROUP))


def study_called(text: str) -> object:
    """The installed study for ``NAME[:option=value,...]``; raises StrategyError for unknown names and options."""
    parsed = StrategyText.parse(text)
    entry = only(GROUP, parsed.name, installed(GROUP), parsed.owner)
    return guarded(configured(GROUP, text, entry), f"study {parsed.name!r} ({owner_of(entry)})")


def loaded() -> tuple[dict[str, object], dict[str, str]]:
    """Name -> installed study; and of those that cannot be loaded, name -> why."""
    found, failed = {}, {}
    for name in names():
        try:
            study = study_called(f"{OURS}/{name}" if _is_ours(name) else name)
            for part in dir(study):  # one whose parts cannot be read fails here, and not where somebody looks at it
                getattr(study, part)
            found[name] = study
        except HeadwiseError as error:
            failed[name] = str(error)
    return found, failed


def chapters(found: ReadFolder) -> tuple[list[Chapter], list[str]]:
    """The chapters of a folder, sorted by the names of the studies; and a warning for each study that is left out.

    Where a study of another package cannot be loaded, its records are shown like those that name no study. Where its
    chapter fails, only that chapter is missing.
    """
    studies, left_out = _reported()
    layouts: dict[int, tuple[str, ChapterLayout, list[Record]]] = {}
    for record in found.records:
        name = _study_of(record, studies)
        if name is not None:
            layout = studies[name].layout
            layouts.setdefault(id(layout), (name, layout, []))[2].append(record)
    made = []
    for name, layout, mine in sorted(layouts.values(), key=lambda layout: layout[0]):
        try:
            made.append(_chapter(name, layout, found, mine))
        except ContractError as error:
            left_out.append(f"{len(mine)} records are not shown: {error}")
    return made, left_out


def _chapter(name: str, layout: ChapterLayout, found: ReadFolder, mine: Sequence[Record]) -> Chapter:
    if _is_ours(name):
        return layout.chapter(found, mine)
    who = f"the chapter of study {name!r}"
    with blamed(who):
        made = layout.chapter(found, mine)
        if not isinstance(made, Chapter) or not all(isinstance(section, Section) for section in made.sections):
            raise TypeError(f"wanted a Chapter of Sections, got {shown(made)}")
        sections = [attrs.evolve(section, draw=owned(section.draw, who)) for section in made.sections]
    return attrs.evolve(made, sections=sections, terminal=owned(made.terminal, who))


def _is_ours(name: str) -> bool:
    return any(entry.dist and distribution(entry.dist)[0] == OURS for entry in installed(GROUP)[name])


def _reported() -> tuple[dict[str, Reported], list[str]]:
    """The studies that can be reported, and a warning for each that cannot."""
    found, failed = loaded()
    studies = {name: study for name, study in found.items() if isinstance(study, Reported)}
    lacking = "study {!r} lacks layout or takes; see headwise_lab.report.studies.Reported"
    failed |= {name: lacking.format(name) for name in found.keys() - studies.keys()}
    told = "Study {!r} is left out, its records are shown as those of no study: {}"
    return studies, [told.format(*one) for one in sorted(failed.items())]


def _study_of(record: Record, studies: Mapping[str, Reported]) -> str | None:
    if record.study in studies:
        return record.study
    return next((name for name, study in studies.items() if study.takes(record)), None)
