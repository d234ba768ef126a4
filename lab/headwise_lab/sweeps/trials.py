"""Trials as plain data, so that they can be written into a plan and sent to other processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from cattrs.preconf.json import make_converter

FULL = "full"
"""The ``case_group`` of a text that is read with a full cache."""


@attrs.frozen(kw_only=True)
class Trial:
    """One trial of a sweep. ``refused`` says why it cannot be run; ``questions`` are how many it asks.

    Of a text that a language model reads, ``benchmark`` names it, ``questions`` are its tokens, and ``case`` and
    ``case_group`` say which run of the KV study this is.
    """

    id: str
    label: str
    model: str
    benchmark: str
    seed: int = 0
    strategies: tuple[str, ...] = ()
    recipe: str | None = None
    tokens: float | None = None
    keep: int | None = None
    case: str | None = None
    case_group: str | None = None
    questions: int = 0
    refused: str | None = None

    @property
    def group(self) -> tuple[str, str, int]:
        """Trials with the same model, benchmark and seed share what the model sees."""
        return self.model, self.benchmark, self.seed

    @property
    def reads_text(self) -> bool:
        """Whether a language model reads a text, and no questions are asked."""
        return self.case is not None

    @property
    def prunes(self) -> bool:
        """Whether it leaves anything out: it has a budget of visual tokens, or not the full cache."""
        if self.reads_text:
            return self.case_group != FULL
        return self.tokens is not None or self.keep is not None


@attrs.frozen(kw_only=True)
class Reading:
    """What a text trial needs beside its strategy, whole, so that a worker reads no file of the planning machine.

    ``name``, ``digest``, ``ids`` and ``source`` are those of ``kv.texts.Text``; ``profile`` is a head profile made
    plain, ``profile_path`` where it can be read; ``scale``: how large windows are beside those of seed 004.
    """

    name: str
    digest: str
    ids: tuple[int, ...]
    source: str = ""
    profile: Mapping[str, Any] | None = None
    profile_path: str | None = None
    scale: float = 1.0


@attrs.frozen(kw_only=True)
class Terms:
    """What holds for all trials of a plan. ``one_thread``: compute on one; ``reading``: where a text is read.

    ``out``: the sweep's folder, where answers of unfinished trials stay, if a worker sees it; else they are asked anew.
    """

    limit: int | None = None
    batch: int = 16
    timed_batches: int = 3
    timed_in_turns: bool = True
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "sdpa"
    data: str | None = None
    study: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    one_thread: bool = False
    reading: Reading | None = None
    out: str | None = None


@attrs.frozen(kw_only=True)
class Work:
    """What a worker has to know before its first trial: the terms, and its runner as ``module:attribute``."""

    terms: Terms = attrs.field(factory=Terms)
    runner: str = "headwise_lab.sweeps.runner:ModelRunner"


_JSON = make_converter()


def plain(value: Trial | Work) -> dict[str, object]:
    """As objects, lists, texts and numbers."""
    told: dict[str, object] = _JSON.unstructure(value)
    return told


def trial_from(told: Mapping[str, object]) -> Trial:
    """The trial that was made plain."""
    return _JSON.structure(told, Trial)


def work_from(told: Mapping[str, object]) -> Work:
    """The work that was made plain."""
    return _JSON.structure(told, Work)
