"""Benchmarks from the Hugging Face hub: a dataset is written once as official files, which the loader then reads.

* ``--data hub``: the benchmark's usual dataset.
* ``--data hub:OWNER/NAME[@REVISION][:CONFIG][:SPLIT]``: another dataset of the same layout.
* ``--data hub:FOLDER[:CONFIG][:SPLIT]``: a local copy of a dataset (``hub:./FOLDER``, ``hub:/FOLDER``).
"""

from __future__ import annotations

from headwise_lab.benchmarks.hub.reference import DatasetReference, is_reference

__all__ = ["DatasetReference", "is_reference"]
