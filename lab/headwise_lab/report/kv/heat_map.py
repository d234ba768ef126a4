"""A heat map of the passkeys that one strategy found, by context length and depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

from headwise_lab.report.page.canvas import INK, new_canvas, save
from headwise_lab.store.record_types import NeedleRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "text.color": INK,
    "text.parse_math": False,
}
_DARK = 0.55  # the cells of smaller shares are so dark that their figures are written in white


def draw_passkeys(record: NeedleRecord, folder: Path) -> Path:
    """Write the heat map of one record as a PNG; its name is made from the strategy and the record's id."""
    text = record.strategies["kv_eviction"]
    path = folder / f"needle-{text.partition(':')[0].rpartition('/')[2]}-{record.id[:8]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    lengths, depths = record.lengths, record.lengths[0].depths
    with matplotlib.rc_context(_STYLE):
        canvas = new_canvas(max(4.2, 1.6 + 0.9 * len(lengths)), 1.3 + 0.42 * len(depths))
        panel = canvas.subplots()
        _cells(panel, [[found.depths[row].metric.value for found in lengths] for row in range(len(depths))])
        panel.set_xticks(range(len(lengths)), [str(found.length) for found in lengths])
        panel.set_yticks(range(len(depths)), [f"{100 * found.depth:.0f} %" for found in depths])
        panel.set_xlabel("context, tokens")
        panel.set_ylabel("depth of the passkey")
        panel.set_title(f"{record.model}, {text}", wrap=True)
        canvas.colorbar(panel.images[0], ax=panel, label="passkeys found")
        save(canvas, path)
    return path


def _cells(panel: Axes, shares: Sequence[Sequence[float]]) -> None:
    """A coloured cell for each share, its figure inside."""
    panel.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            colour = "white" if share < _DARK else "black"
            panel.text(column, row, f"{share:.2g}", ha="center", va="center", color=colour)
