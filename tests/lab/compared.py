"""What reports compare in an output folder, without the pages around it."""

from __future__ import annotations

from pathlib import Path

from headwise_lab.report.chapter import ReadFolder
from headwise_lab.report.heads.comparison import Comparison, compare_heads
from headwise_lab.report.methods.methods import Methods, compare_methods
from headwise_lab.store.records import read_records


def heads_in(folder: Path) -> list[Comparison]:
    """The comparisons of head scorers in a folder that holds nothing else."""
    return compare_heads(ReadFolder(folder, read_records(folder)[0]).trials)


def methods_in(folder: Path) -> list[Methods]:
    """The comparisons of methods in a folder that holds nothing else."""
    found = ReadFolder(folder, read_records(folder)[0])
    return compare_methods(found.trials, found.records)
