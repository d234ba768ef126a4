"""Overlays of kept tokens on a page: a figure that can be printed, and the data from which the script draws."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from headwise_lab.report.page.canvas import Figure


@attrs.frozen(eq=False)
class KeptView:
    """The overlays of one table: the printable figure, the data for the script, and a ``note`` on what is shown."""

    title: str
    data: Mapping[str, object]
    figure: Figure
    note: str
    benchmark: str

    @property
    def facets(self) -> list[tuple[str, str]]:
        """The (kind, value) pairs by which the page filters the view."""
        return [("benchmark", self.benchmark)]
