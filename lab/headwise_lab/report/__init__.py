"""Reports: what the records say, and no more than the evidence carries."""

from __future__ import annotations

from headwise_lab.report.building import ReportPaths, build

__all__ = ["ReportPaths", "build"]
