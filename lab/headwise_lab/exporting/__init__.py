"""Exports the records and outcomes of an output folder as two flat tables for other programs."""

from headwise_lab.exporting.tables import Table, read_tables
from headwise_lab.exporting.writers import FORMATS, export, targets

__all__ = ["FORMATS", "Table", "export", "read_tables", "targets"]
