"""How a study ends: its report is built, the table printed, and the folder named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from rich.console import Console

    from headwise_lab.store import Store
    from headwise_lab.sweep import Tally


def finish(store: Store, tally: Tally, title: str, console: Console) -> None:
    """Build the report, print the terminal table and say where everything is; HeadwiseError if trials failed."""
    from rich.console import Console as Output

    from headwise_lab.records import read_records
    from headwise_lab.report import build, terminal_table

    paths = build(store.folder, title)
    for warning in paths.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    records, _ = read_records(store.folder)
    table = terminal_table(records, store.folder)
    needed = Output(width=1000).measure(table).maximum  # a narrower terminal wraps lines, and no figure is lost
    output = Output(width=max(Output().width, needed), soft_wrap=True, highlight=False)
    output.print(table)
    output.print()
    for finding in paths.findings:
        output.print(finding, markup=False)
    output.print(f"\n{tally.ran} trials run, {tally.found} were there already.")
    output.print(
        f"Report: {paths.html} (also report.md, results.jsonl, tables/ and figures/ in {store.folder})",
        markup=False,
    )
    if tally.failed:
        what = "1 trial" if tally.failed == 1 else f"{tally.failed} trials"
        raise HeadwiseError(f"{what} failed; the report in {store.folder} says why")
