"""The runs of the KV study as data: the groups of the head-aware KV cache study on Pythia-2.8B, and what it lacks.

Its groups are A (windows without sinks), B (StreamingLLM), G (windows by confidence), I (inverse: positional heads see
further), J (small windows for gathering heads) and K (equal windows for every class). Added here are the full cache,
windows allocated by attention mass at B's budgets, uniform runs between those of B (the curve is interpolated), and for
every head-aware run the same windows shuffled over the heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs

TOKENS = 1000
"""Tokens that are scored where no number is given."""

SINKS = 4
CONTEXTS = (64, 128, 256, 512)
BETWEEN = (96, 192, 384)
"""Uniform runs added between those of group B. They halve the distances, so interpolation errs a quarter as much."""

THRESHOLDS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
BASES = (64, 128)
SURE = {"positional": 16, "mixed": 64, "gathering": 256}
"""Group G: windows of the heads whose class is confident."""

SMALL = ((64, 64, 128), (64, 64, 256), (128, 128, 256), (32, 64, 128), (64, 128, 256))
"""Group J: positional, mixed and gathering windows; the head-aware KV cache study has the first."""

PERMUTATIONS = 3
LONGEST = 4
"""The trained context of a model should hold so many of the largest windows; otherwise all windows are scaled down."""

SMALLEST_SCALE = 1 / 8


@attrs.frozen
class KvCase:
    """One run of a study: its name, group and strategy text."""

    name: str
    group: str
    text: str


def study_kv(scale: float = 1.0, permutations: int = PERMUTATIONS) -> list[KvCase]:
    """The whole study, all windows times ``scale``. References come first, so that an interrupted study can be read."""
    contexts = sorted(_scaled(context, scale) for context in (*CONTEXTS, *BETWEEN))
    informed = [*_confidence(scale), *_inverse(scale), *_small(scale), *_allocated(scale)]
    cases = [
        FULL,
        *(streaming(context) for context in contexts),
        *(_window(_scaled(context, scale)) for context in (64, 128, 512)),
        *(_equal(_scaled(window, scale)) for window in (64, 128, 256)),
        *informed,
        *(shuffled(case, seed) for seed in range(permutations) for case in informed),
    ]
    return list(dict.fromkeys(cases))


def demo_kv(scale: float) -> list[KvCase]:
    """A small study: a few budgets, three head-aware runs with their controls, and three score-based runs."""
    short, middle, long = (_scaled(context, scale) for context in (64, 128, 256))
    informed = [
        _heads("J", short, short, middle),
        _heads("I", long, middle, middle),
        _allocation(middle),
    ]
    return [
        FULL,
        *(streaming(context) for context in (short, _scaled(96, scale), middle, _scaled(192, scale), long)),
        *(_window(context) for context in (short, middle)),
        _equal(short),
        *informed,
        *(shuffled(case, seed) for seed in range(PERMUTATIONS) for case in informed),
        *(scored(name, middle) for name in ("snapkv", "h2o", "random")),
    ]


def demo_real() -> list[KvCase]:
    """A study of a real model in a minute: sinks, and head-aware windows beside uniform and shuffled ones."""
    informed = [_heads("J", 64, 64, 128), _heads("I", 128, 64, 64)]
    return [
        FULL,
        *(streaming(context) for context in (64, 96, 128)),
        _window(64),
        *informed,
        *(shuffled(case, seed) for seed in range(2) for case in informed),
        scored("snapkv", 64),
    ]


def scale_for(trained: int | None) -> float:
    """The largest of 1, 1/2, 1/4 and 1/8 at which the trained context holds LONGEST of the largest windows."""
    scale = 1.0
    while trained is not None and scale > SMALLEST_SCALE and trained < LONGEST * max(CONTEXTS) * scale:
        scale /= 2
    return scale


FULL = KvCase("full", "full", "none")


def streaming(context: int) -> KvCase:
    """Group B: ``context`` entries, sinks included."""
    return KvCase(f"B_streaming_{context}", "B", f"streaming:sinks={SINKS},window={context - SINKS}")


def scored(name: str, budget: int) -> KvCase:
    """A score-based strategy at a budget."""
    return KvCase(f"{name}_{budget}", "score", f"{name}:budget={budget}")


def shuffled(case: KvCase, seed: int) -> KvCase:
    """The control of a head-aware run: its windows shuffled over the heads."""
    return KvCase(f"{case.name} permuted {seed}", "permuted", f"permuted:of=[{case.text}],seed={seed}")


def _window(window: int) -> KvCase:
    return KvCase(f"A_window_{window}", "A", f"window:window={window}")


def _heads(group: str, positional: int, mixed: int, gathering: int) -> KvCase:
    text = f"head_windows:positional={positional},mixed={mixed},gathering={gathering},sinks={SINKS}"
    return KvCase(f"{group}_pos{positional}_mix{mixed}_g{gathering}", group, text)


def _equal(window: int) -> KvCase:
    """Group K, which is StreamingLLM with SINKS more entries."""
    return attrs.evolve(_heads("K", window, window, window), name=f"K_uniform{window}_aware")


def _confidence(scale: float) -> list[KvCase]:
    """Group G."""
    sure = ",".join(f"{kind}={_scaled(window, scale)}" for kind, window in SURE.items())
    return [
        KvCase(
            f"G_conf{threshold:g}_base{base}",
            "G",
            f"confidence_windows:threshold={threshold:g},base={base},{sure},sinks={SINKS}",
        )
        for base in (_scaled(base, scale) for base in BASES)
        for threshold in THRESHOLDS
    ]


def _inverse(scale: float) -> list[KvCase]:
    """Group I. Equal windows of 128 for every class are left out: they are K_uniform128."""
    windows = itertools.product((128, 256, 512), BASES, (128,))
    return [_heads("I", *_all_scaled(triple, scale)) for triple in windows if len(set(triple)) > 1]


def _small(scale: float) -> list[KvCase]:
    """Group J."""
    return [_heads("J", *_all_scaled(triple, scale)) for triple in SMALL]


def _allocated(scale: float) -> list[KvCase]:
    return [_allocation(_scaled(context, scale)) for context in CONTEXTS]


def _allocation(budget: int) -> KvCase:
    return KvCase(f"allocated_{budget}", "allocated", f"allocated:budget={budget},sinks={SINKS}")


def _all_scaled(windows: Sequence[int], scale: float) -> list[int]:
    return [_scaled(window, scale) for window in windows]


def _scaled(window: int, scale: float) -> int:
    return max(1, round(window * scale))
