"""Headwise inside the harnesses people already trust: lmms-eval and lm-eval, and their results in our reports.

Neither harness is needed to import this package; each of the two model modules imports its own.
"""

from __future__ import annotations

from typing import Any

NAME = "headwise"
"""What users write after ``--model``."""


def lmms_eval_manifest() -> Any:
    """What lmms-eval wants to know of our model; it calls this by the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path="headwise_lab.engines.lmms_eval_model.HeadwiseModel")
