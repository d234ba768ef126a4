"""What a study is: it plans trials, names what runs them and so what is recorded, and reports what they found.

A study is an object that an entry point of the group ``headwise.study`` makes; its options are those of the text
``NAME[:option=value,...]``. It follows one sweep from end to end:

* plan: ``plans`` turns a sweep file into plans, each a list of trials checked before the first one runs;
* run: a plan's ``work`` names the runner that a worker builds (``headwise_lab.sweeps.executor.Runner``);
* record: what the runner returns is stored, and its ``study`` is the study's name;
* section: ``layout`` makes the report's chapter of those records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from headwise.errors import HeadwiseError, StrategyError
from headwise_lab.report.studies import Reported, loaded, study_called
from headwise_lab.sweeps.schema import Rules, SweepFile

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Plan


@runtime_checkable
class Study(Reported, Rules, Protocol):
    """A study that can be planned and reported."""

    @property
    def title(self) -> str:
        """What heads its report."""
        ...

    @property
    def about(self) -> str:
        """What it compares, in a few words, for lists and errors."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Options of ``headwise ablate`` that mean something in it, and the key of the sweep file that each gives."""
        ...

    def table(self, given: Mapping[str, object]) -> dict[str, object]:
        """The sweep file, as a TOML table, that options of ``headwise ablate`` ask for; raises DataError.

        ``given`` has every option of the command by name, with its default where it was not given.
        """
        ...

    def plans(self, sweep: SweepFile, folder: Path | None, *, may_refuse: type[HeadwiseError]) -> Sequence[Plan]:
        """The plans of a sweep file, in the order in which they run.

        What they need beside the records may be written into the output folder (None: only planned). A trial that
        raises ``may_refuse`` when it is checked is recorded as refused; other errors are raised.
        """
        ...


def find_study(text: str) -> Study:
    """The installed study of a text; raises StrategyError where there is none, or it cannot be planned."""
    found = study_called(text)
    if not isinstance(found, Study):
        lacks = sorted(name for name in _PARTS if not hasattr(found, name))
        raise StrategyError(f"study {text!r} lacks {', '.join(lacks)}; see headwise_lab.sweeps.study.Study")
    return found


def studies() -> dict[str, Study]:
    """The installed studies that can be planned, by name."""
    return {name: found for name, found in loaded()[0].items() if isinstance(found, Study)}


_PARTS = ("about", "keys", "layout", "model", "options", "plans", "table", "takes", "title", "wrong")
