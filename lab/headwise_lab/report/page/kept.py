"""Overlays of kept tokens as a page carries them: one figure for paper, and the data that its script draws from."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from headwise_lab.report.page.canvas import Figure


@attrs.frozen(eq=False)
class KeptView:
    """The overlays of one table: the picture for paper, and the data of the page's own; ``note`` says what is shown."""

    title: str
    data: Mapping[str, object]
    figure: Figure
    note: str
    benchmark: str

    @property
    def facets(self) -> list[tuple[str, str]]:
        """What the view is filtered by."""
        return [("benchmark", self.benchmark)]
