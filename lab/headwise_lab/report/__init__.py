"""Reports on the records of an output folder; they claim no more than the tests show."""

from __future__ import annotations

from headwise_lab.report.building import ReportPaths, build

__all__ = ["ReportPaths", "build"]
