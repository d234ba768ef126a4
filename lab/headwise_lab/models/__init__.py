"""Models by name or folder: those inside the package, checkpoints, processors."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SHIPPED = ("demo-llava", "demo-pythia")


def shipped(name: str) -> Path:
    """The folder of a shipped model, ready for ``from_pretrained``."""
    if name not in SHIPPED:
        raise ValueError(f"no shipped model is called {name!r}; there are {', '.join(SHIPPED)}")
    return Path(str(files(__name__) / name))
