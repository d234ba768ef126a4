"""The end of a study: builds the report, prints its tables and names the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise.errors import HeadwiseError
from headwise.hints import number_of
from headwise.verbosity import warn

if TYPE_CHECKING:
    from rich.console import Console

    from headwise_lab.store.output_folder import Store
    from headwise_lab.sweeps.tally import Tally


def finish(store: Store, tally: Tally, title: str, console: Console) -> None:
    """Build the report, print its tables and the place of all files.

    Raises HeadwiseError if trials failed, or none could be run.
    """
    from headwise_lab.report import build
    from headwise_lab.store.working_copy import at_hand
    from headwise_lab.terminal.console import wide_enough

    with at_hand(store.folder, writes=True) as folder:
        paths = build(folder, title)
    tables = [table for chapter in paths.content.chapters for table in chapter.terminal()]
    for warning in paths.warnings:
        warn(warning)
    output = wide_enough(tables)
    for table in tables:
        output.print(table)
        output.print()
    for finding in paths.findings:
        output.print(finding)
    refused = f" {tally.refused} could not be run; the report says why." if tally.refused else ""
    there = f"{tally.found} {'was' if tally.found == 1 else 'were'} there already"
    output.print(f"\n{number_of(tally.ran, 'trial')} run, {there}.{refused}")
    output.print(
        f"Report: {store.folder / paths.html.name}"
        f" (also report.md, results.jsonl, tables/ and figures/ in {store.folder})",
    )
    if tally.failed:
        raise HeadwiseError(f"{number_of(tally.failed, 'trial')} failed; the report in {store.folder} says why")
    if tally.refused and not any(record.has_result for record in paths.content.records):
        raise HeadwiseError(f"no trial could be run; the report in {store.folder} says why")
