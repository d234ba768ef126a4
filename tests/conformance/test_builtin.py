"""Every strategy that headwise ships meets every law of its hook, found by name as a user finds it."""

from __future__ import annotations

import pytest

from headwise.registry import Registry
from headwise.testing import cases, laws

HOOKS = ("query_selection", "head_scoring", "head_count", "token_pruning", "kv_eviction", "head_classification")

VARIANTS = {
    "query_selection": (
        "attention_weighted:form=softmax",
        "last_n_tokens:n=1",
        "weighted_recent:window=1",
        "raters:scale=sqrt",
    ),
    "head_scoring": ("sparsity:form=hoyer", "sparsity:form=raw", "top_k_sum:k=1", "graph_based:relu=true"),
    "head_count": ("fixed:heads=1", "fixed:heads=4", "fixed:share=1", "median_of_three:low=2,high=5"),
    "token_pruning": (
        "fastv:layer=1",
        "random:layer=3,seed=1",
        "uniform:layer=2",
        "sparsevlm:variant=plus,layers=1/2/4",
        "sparsevlm:recycle=1,clusters=0.4,merged=end",
        "pdrop:layers=1/4",
        "feather:layer=1,second_layer=4,uniform=0.5,criterion=attention",
        "dart:layer=1,image_pivots=9,text_pivots=0",
        "vispruner:important=0,step=1",
        "vispruner:important=1",
        "visionzip:dominant=0",
        "visionzip:dominant=0.3,merge=members",
        "cdpruner:relevance=embeddings,sign=positive",
        "cdpruner:relevance=clip,theta=0.8",
        "divprune:layer=2",
        "tome:metric=features,step=3",
    ),
    "kv_eviction": (
        "window:window=1",
        "streaming:sinks=0,window=1,positions=original",
        "head_windows:positional=256,gathering=8,sinks=0",
        "confidence_windows:threshold=0.9,base=128",
        "permuted:of=[head_windows:positional=256,gathering=8],seed=3,within=layer",
        "allocated:budget=12.5,floor=0,levels=2",
        "snapkv:budget=16,queries=8,kernel=3,pool=max",
        "h2o:budget=12,sinks=2,latest=0.25",
        "tova:ratio=0.3,recent=3,rerotate=true",
        "lagkv:lag=4,budget=24",
        "expected_attention:budget=20,queries=5,epsilon=0.01,rerotate=true",
        "pyramidkv:budget=16,queries=4,recent=2",
        "adakv:of=[h2o:budget=9,recent=2],floor=0,levels=2",
        "adakv:of=[snapkv:budget=20,queries=6],floor=0.5",
    ),
    "head_classification": ("locality:window=16,sinks=0,low=0.5,high=0.5", "sensitivity:threshold=0"),
}
"""Texts with options that change what is computed, beside every name with its defaults."""

EXCEPTIONS = {
    ("head_scoring", "random"): {"heads_permute": "draws a score per head index, whatever the head looks at"},
    ("head_count", "fixed:heads=4"): {"single_head": "four heads are asked for, and there is one"},
    ("kv_eviction", "random"): {"heads_permute": "draws a number per KV head, whatever the head holds"},
    ("token_pruning", "calibrated"): dict.fromkeys(
        laws("token_pruning"), "needs a file of one model's head weights; tests/plugins/test_calibrated.py has one"
    ),
    ("token_pruning", "none"): {"budget_is_met": "prunes nothing, so every budget below everything is refused"},
}
"""(hook, text) -> law -> why this strategy does not follow it."""


def shipped(hook):
    """Names that this distribution ships; what else happens to be installed is tested elsewhere."""
    found = Registry.installed(hook).found
    return [name for name, entries in found.items() if any(entry.dist.name == "headwise" for entry in entries)]


CASES = [
    case
    for hook in HOOKS
    for text in (*shipped(hook), *VARIANTS[hook])
    for case in cases(hook, [text], expected_failures=EXCEPTIONS.get((hook, text)))
]


@pytest.mark.parametrize("check", CASES)
def test_shipped_strategy_meets_the_laws_of_its_hook(check):
    check()
