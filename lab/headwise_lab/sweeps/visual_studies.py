"""The studies of visual tokens: head scoring (a), query selection (b) and published methods.

They differ in what an ``ablate`` command line compares and in how a report shows it; a sweep file says the same in all
of them, and is planned in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from headwise.errors import BudgetError, HeadwiseError
from headwise_lab.report.heads.chapter import HeadLayout
from headwise_lab.report.methods.chapter import MethodsLayout
from headwise_lab.report.studies import ChapterLayout
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.values import EVERY

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Plan
    from headwise_lab.sweeps.schema import SweepFile

HEADS = HeadLayout(by_query=("b",))
METHODS = MethodsLayout()

KEYS = (
    "benchmarks", "seeds", "limit", "batch", "timed_batches", "timed_in_turns", "data", "unpruned", "baseline",
    "control", "recipes", "budgets", "settings", "grids",
)  # fmt: skip
OPTIONS = {
    "benchmarks": "benchmarks", "tokens": "tokens", "keep": "keep", "limit": "limit", "seed": "seeds",
    "batch": "batch", "data": "data", "positions": "positions", "aggregate": "aggregate", "min_mass": "min_mass",
    "sink_share": "sink_share",
}  # fmt: skip
ROUGHLY = {"timed_batches": 1, "timed_in_turns": False}  # as in the sweep files of studies a and b
PRECISELY = {"timed_batches": 5}  # the figure of study methods is about time


@attrs.frozen(kw_only=True)
class VisualStudy:
    """Trials of a vision-language model on benchmarks, planned as the sweep file says."""

    name: str
    title: str
    about: str
    layout: ChapterLayout
    own_options: Mapping[str, str]
    compared: Callable[[Mapping[str, Any]], dict[str, object]]
    """What options of ``ablate`` compare, as keys of a sweep file."""

    model: str = "demo-llava"
    keys: Sequence[str] = KEYS

    @property
    def options(self) -> Mapping[str, str]:
        """The options that all visual studies have, and its own."""
        return {**OPTIONS, **self.own_options}

    def takes(self, record: Record) -> bool:
        """Studies of heads show what was asked of a benchmark outside any study."""
        return self.layout is HEADS and not record.reads_text

    def wrong(self, sweep: SweepFile) -> tuple[str, str] | None:
        """That neither recipes nor grids are given."""
        if sweep.recipes or sweep.grids:
            return None
        return "recipes", "nothing is compared; give recipes = [...] or a table [[grids]]"

    def table(self, given: Mapping[str, Any]) -> dict[str, object]:
        """Benchmarks, budgets and settings as options give them, and what the study compares."""
        if given["tokens"] and given["keep"]:
            raise BudgetError("both --tokens and --keep are given; a study has one kind of budget")
        return {
            "benchmarks": given["benchmarks"] or [],
            "budgets": {"tokens": given["tokens"] or [], "keep": given["keep"] or []},
            "settings": {key: given[key] for key in ("positions", "aggregate", "min_mass", "sink_share")},
            "seeds": [given["seed"]],
            **{key: given[key] for key in ("limit", "batch", "data")},
            **self.compared(given),
        }

    def plans(self, sweep: SweepFile, folder: Path | None, *, may_refuse: type[HeadwiseError]) -> Sequence[Plan]:
        """One plan of all trials."""
        from headwise_lab.sweeps.planning import planned

        return [planned(sweep, study=self.name, may_refuse=may_refuse)]


def _scorers(given: Mapping[str, Any]) -> dict[str, object]:
    """A grid of head scorers and head counts."""
    grid = {"heads": given["heads"] or [], "head_scoring": given["strategies"] or [EVERY]}
    return {"grids": [grid], **ROUGHLY}


def _queries(given: Mapping[str, Any]) -> dict[str, object]:
    """A grid of query strategies at one scorer, with half of the heads where no count is given."""
    grid = {"head_scoring": [given["scorer"]], "query_selection": given["strategies"] or [EVERY]}
    grid |= {"heads": given["heads"]} if given["heads"] else {"heads": [], "head_shares": [0.5]}
    return {"grids": [grid], **ROUGHLY}


def _recipes(given: Mapping[str, Any]) -> dict[str, object]:
    return {"recipes": given["recipe"] or [EVERY], **PRECISELY}


def study_a() -> VisualStudy:
    """Which heads: head-scoring strategies, with FastV and random heads beside them."""
    return VisualStudy(
        name="a",
        title="Study A",
        about="head scoring",
        layout=HEADS,
        own_options={"heads": "heads", "strategies": "head_scoring"},
        compared=_scorers,
    )


def study_b() -> VisualStudy:
    """Which query tokens: query strategies at one head scorer."""
    return VisualStudy(
        name="b",
        title="Study B",
        about="query selection",
        layout=HEADS,
        own_options={"heads": "heads", "strategies": "query_selection", "scorer": "head_scoring"},
        compared=_queries,
    )


def study_methods() -> VisualStudy:
    """Whole methods as they were published, at equal processed averages."""
    return VisualStudy(
        name="methods",
        title="Published methods",
        about="named recipes",
        layout=METHODS,
        own_options={"recipe": "recipes"},
        compared=_recipes,
    )
