"""Headwise inside the harnesses people already trust: lmms-eval and lm-eval, and their results in our reports.

Neither harness is needed to import this package; each of the two model modules imports its own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

NAME = "headwise"
"""What users write after ``--model``."""


def lmms_eval_manifest() -> Any:
    """What lmms-eval wants to know of our model; it calls this by the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path="headwise_lab.engines.lmms_eval_model.HeadwiseModel")


def lm_eval() -> int:
    """``headwise-lm-eval``: lm-eval's own command line, which knows ``--model headwise``; returns the exit status."""
    if find_spec("lm_eval") is None:
        print("headwise: lm-eval is not installed; pip install 'headwise[lm-eval]'", file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate

    import_module("headwise_lab.engines.lm_eval_model")  # registers our model
    cli_evaluate()
    return 0
