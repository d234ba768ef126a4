"""Benchmarks by hub id: rows of a dataset are written once in the benchmark's official files, which its loader reads.

``--data hub`` is the usual dataset of a benchmark, ``--data hub:OWNER/NAME[@REVISION][:CONFIG][:SPLIT]`` another one of
the same layout, ``--data hub:FOLDER[:CONFIG][:SPLIT]`` a local copy of one (``hub:./FOLDER``, ``hub:/FOLDER``).
"""

from __future__ import annotations

from headwise_lab.benchmarks.hub.reference import Reference, is_reference

__all__ = ["Reference", "is_reference"]
