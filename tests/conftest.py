"""Tiny random models and prompts shared by the tests; nothing here needs the network."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers that share cores wait for each other's threads at every step
    os.environ.setdefault("OMP_NUM_THREADS", "1")
