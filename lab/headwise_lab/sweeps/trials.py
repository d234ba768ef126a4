"""Trials as plain data, so that they can be written into a plan and sent to other processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from cattrs.preconf.json import make_converter


@attrs.frozen(kw_only=True)
class Trial:
    """One trial of a sweep. ``refused`` says why it cannot be run; ``questions`` are how many it asks."""

    id: str
    label: str
    model: str
    benchmark: str
    seed: int = 0
    strategies: tuple[str, ...] = ()
    recipe: str | None = None
    tokens: float | None = None
    keep: int | None = None
    questions: int = 0
    refused: str | None = None

    @property
    def group(self) -> tuple[str, str, int]:
        """Trials with the same model, benchmark and seed share what the model sees."""
        return self.model, self.benchmark, self.seed

    @property
    def prunes(self) -> bool:
        """Whether it has a budget."""
        return self.tokens is not None or self.keep is not None


@attrs.frozen(kw_only=True)
class Terms:
    """What holds for all trials of a sweep."""

    limit: int | None = None
    batch: int = 16
    timed_batches: int = 3
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "sdpa"
    data: str | None = None
    study: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Work:
    """What a worker has to know before its first trial: the terms, and its runner as ``module:attribute``."""

    terms: Terms = attrs.field(factory=Terms)
    runner: str = "headwise_lab.sweeps.runner:ModelRunner"


_JSON = make_converter()


def plain(value: Trial | Work) -> dict[str, Any]:
    """As objects, lists, texts and numbers."""
    told: dict[str, Any] = _JSON.unstructure(value)
    return told


def trial_from(told: Mapping[str, Any]) -> Trial:
    """The trial that was made plain."""
    return _JSON.structure(told, Trial)


def work_from(told: Mapping[str, Any]) -> Work:
    """The work that was made plain."""
    return _JSON.structure(told, Work)
