"""The folder where headwise keeps what it has prepared or downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from headwise.reading import local_path


def cache() -> Path:
    """Headwise's cache folder: ``HEADWISE_CACHE``, else ``headwise`` in the user's cache."""
    own = os.environ.get("HEADWISE_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return local_path(own or Path(users, "headwise")).absolute()
