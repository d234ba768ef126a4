"""Trials as plain data, which can be written into a plan and sent to other processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from cattrs.preconf.json import make_converter

FULL = "full"
"""The ``case_group`` of a text that is read with a full cache."""


@attrs.frozen(kw_only=True)
class Trial:
    """One trial of a sweep. ``refused``: why it cannot be run; ``questions``: how many questions it asks.

    Where a language model reads a text, ``benchmark`` is the text's name, ``questions`` is its number of tokens, and
    ``case`` and ``case_group`` say which run of the KV study this is.
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
        """Model, benchmark and seed: trials of one group share the model and its inputs."""
        return self.model, self.benchmark, self.seed

    @property
    def reads_text(self) -> bool:
        """Whether a language model reads a text instead of answering questions."""
        return self.case is not None

    @property
    def prunes(self) -> bool:
        """Whether it has a budget of visual tokens, or of a text that is read, less than the full cache."""
        if self.reads_text:
            return self.case_group != FULL
        return self.tokens is not None or self.keep is not None


@attrs.frozen(kw_only=True)
class TextInput:
    """What a text trial needs beside its strategy. A worker needs no file of the machine that made the plan.

    ``name``, ``digest``, ``ids`` and ``source`` are those of ``texts.tokens.Text``. ``profile`` is the content of a
    head profile, ``profile_path`` its file. ``scale``: window sizes as a multiple of the head-aware cache study's.
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
    """What holds for all trials of a plan. ``one_thread``: torch uses one; ``reading``: the text, where one is read.

    ``out``: the sweep's folder, where workers keep the answers of unfinished trials. A worker that does not see this
    folder asks all questions again.
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
    reading: TextInput | None = None
    out: str | None = None


@attrs.frozen(kw_only=True)
class Work:
    """What a worker needs before its first trial: the terms, and the class of its runner as ``module:attribute``."""

    terms: Terms = attrs.field(factory=Terms)
    runner: str = "headwise_lab.sweeps.runner:ModelRunner"


_JSON = make_converter()


def plain(value: Trial | Work) -> dict[str, object]:
    """A trial or a work as JSON data."""
    data: dict[str, object] = _JSON.unstructure(value)
    return data


def trial_from(data: Mapping[str, object]) -> Trial:
    """The trial that ``plain`` made data of."""
    return _JSON.structure(data, Trial)


def work_from(data: Mapping[str, object]) -> Work:
    """The work that ``plain`` made data of."""
    return _JSON.structure(data, Work)
