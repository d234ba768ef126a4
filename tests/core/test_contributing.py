"""The strategies that CONTRIBUTING.md shows are strategies: each meets every law of its hook."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from headwise.testing import cases, laws

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = [dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", TEXT, flags=re.DOTALL | re.MULTILINE)]
SNIPPETS = [
    pytest.param(*re.match(r"# plugins/headwise_plugins/(\w+)/(\w+)\.py\n", block).groups(), block, id=str(number))
    for number, block in enumerate(BLOCKS)
]


def test_every_hook_with_laws_has_an_example():
    assert sorted(snippet.values[0] for snippet in SNIPPETS) == [
        "head_classification",
        "head_count",
        "head_scoring",
        "kv_eviction",
        "kv_eviction",
        "query_selection",
        "token_pruning",
    ]


@pytest.mark.parametrize(("hook", "name", "source"), SNIPPETS)
def test_example_meets_every_law_of_its_hook(install, hook, name, source):
    (kind,) = re.findall(r"^class (\w+)", source, flags=re.MULTILINE)
    install("zebra", "1.2", {hook: {name: f"zebra_{name}:{kind}"}}, **{f"zebra_{name}": source})
    found = cases(hook, [name])
    assert len(found) == len(laws(hook))
    for case in found:
        case.values[0]()
