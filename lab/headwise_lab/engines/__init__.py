"""Headwise models for the harnesses lmms-eval and lm-eval, and reading the harnesses' results for our reports.

This package can be imported without either harness; each of its two model modules imports its own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

NAME = "headwise"
"""The name that users write after ``--model``."""


def lmms_eval_manifest() -> Any:
    """The manifest of our model, which lmms-eval gets by the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path="headwise_lab.engines.lmms_eval_model.HeadwiseModel")


def lm_eval() -> int:
    """``headwise-lm-eval``: lm-eval's command line with ``--model headwise`` added; returns the exit status."""
    if find_spec("lm_eval") is None:
        print("headwise: lm-eval is not installed; pip install 'headwise[lm-eval]'", file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate

    import_module("headwise_lab.engines.lm_eval_model")  # registers our model
    cli_evaluate()
    return 0
