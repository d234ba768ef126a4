"""A profile as a picture: a row per layer, a column per head. The colour is the class; paler means less confident."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from headwise.heads import Floats, HeadProfile
from headwise_lab.report.page.canvas import STYLE, new_canvas, save

COLOURS = ("#1f6fb4", "#d99a00", "#c0392b", "#59636e", "#2e8b57", "#7d4fa0", "#00838f", "#8d6e63")
"""Colours of the classes, in order; they repeat where there are more classes."""


def colours(profile: HeadProfile) -> Floats:
    """The colour of every head, (l, h, 3) in 0..1: white at confidence 0, the colour of its class at 1."""
    own = np.array([to_rgb(COLOURS[index % len(COLOURS)]) for index in range(len(profile.labels.names))])
    sure = np.clip(profile.labels.confidence, 0, 1)[..., None]
    return np.asarray(1 - sure * (1 - own[profile.labels.labels]))


def draw(profile: HeadProfile, path: Path) -> None:
    """Write the picture as PNG."""
    layers, heads = profile.labels.labels.shape
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(min(14.0, 3.2 + 0.3 * heads), min(14.0, 2.0 + 0.2 * layers))
        axes = canvas.subplots()
        axes.imshow(colours(profile), aspect="auto", interpolation="nearest")
        axes.set(xlabel="Head", ylabel="Layer", title=f"{profile.model}: {profile.strategy.partition(':')[0]}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        keys = [
            Patch(facecolor=COLOURS[index % len(COLOURS)], label=f"{name} ({count})")
            for index, (name, count) in enumerate(profile.labels.counts().items())
        ]
        canvas.legend(handles=keys, loc="outside right upper", title="Paler: less sure", frameon=False)
        save(canvas, path)
