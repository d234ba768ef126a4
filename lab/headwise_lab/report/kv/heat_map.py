"""A picture of the passkeys found, by context length and depth: one per strategy."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from headwise_lab.report.page.canvas import INK, new_canvas, save
from headwise_lab.store.record_types import NeedleRecord

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "text.color": INK,
    "text.parse_math": False,
}
_DARK = 0.55  # shares below this have a cell so dark that their figure is written in white


def draw_passkeys(record: NeedleRecord, folder: Path) -> Path:
    """Write the heat map of one record as a PNG; its name is made of the strategy's and the record's id."""
    lengths = record.lengths
    depths = [found.depth for found in lengths[0].depths]
    shares = [[found.depths[row].metric.value for found in lengths] for row in range(len(depths))]
    text = record.strategies["kv_eviction"]
    path = folder / f"needle-{text.partition(':')[0].rpartition('/')[2]}-{record.id[:8]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        canvas = new_canvas(max(4.2, 1.6 + 0.9 * len(lengths)), 1.3 + 0.42 * len(depths))
        panel = canvas.subplots()
        image = panel.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set_xticks(range(len(lengths)), [str(found.length) for found in lengths])
        panel.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths])
        panel.set_xlabel("context, tokens")
        panel.set_ylabel("depth of the passkey")
        panel.set_title(f"{record.model}, {text}", wrap=True)
        for row, values in enumerate(shares):
            for column, share in enumerate(values):
                colour = "white" if share < _DARK else "black"
                panel.text(column, row, f"{share:.2g}", ha="center", va="center", color=colour)
        canvas.colorbar(image, ax=panel, label="passkeys found")
        save(canvas, path)
    return path
