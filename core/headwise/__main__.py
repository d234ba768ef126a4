"""``python -m headwise``: the ``headwise`` command where it is not on the path."""

from __future__ import annotations

import sys

from headwise.cli import main

sys.exit(main())
