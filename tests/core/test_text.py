"""Strategy text: what is read, what is refused, and that the canonical text reads back."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import StrategyError
from headwise.text import StrategyText, canonical, chosen_options, show

words = st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True)
values = st.from_regex(r"[A-Za-z0-9_.+-]{1,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum", StrategyText("sum")),
        ("  sum ", StrategyText("sum")),
        ("top_k_sum:k=32", StrategyText("top_k_sum", {"k": "32"})),
        ("fixed: heads = 4 , low=1", StrategyText("fixed", {"heads": "4", "low": "1"})),
        ("head_scoring=random", StrategyText("random", hook="head_scoring")),
        ("extra/sum", StrategyText("sum", owner="extra")),
        ("head_scoring=extra/sum:k=1", StrategyText("sum", {"k": "1"}, "head_scoring", "extra")),
        ("a:path=x/y=z", StrategyText("a", {"path": "x/y=z"})),
    ],
)
def test_text_is_read_into_hook_owner_name_and_options(text, expected):
    assert expected == StrategyText.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "strategy text '' has no name; write NAME, NAME:option=value or hook=NAME"),
        (":k=1", "strategy text ':k=1' has no name; write NAME, NAME:option=value or hook=NAME"),
        ("=sum", "strategy text '=sum' has no name; write NAME, NAME:option=value or hook=NAME"),
        ("/sum", "strategy text '/sum' has no name; write NAME, NAME:option=value or hook=NAME"),
        ("sum:", "strategy text 'sum:' ends with ':'; write NAME:option=value or drop the colon"),
        ("sum:k", "option 'k' in strategy text 'sum:k' is not of the form option=value"),
        ("sum:k=", "option 'k=' in strategy text 'sum:k=' is not of the form option=value"),
        ("sum:k=1,k=2", "option 'k' is given twice in strategy text 'sum:k=1,k=2'"),
    ],
)
def test_text_that_does_not_fit_is_refused_with_the_part_that_does_not(text, message):
    with pytest.raises(StrategyError) as caught:
        StrategyText.parse(text)
    assert message == str(caught.value)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(name=words, options=st.dictionaries(words, values, max_size=4), hook=st.none() | words, owner=st.none() | words)
def test_every_text_reads_back_into_what_it_was_made_from(name, options, hook, owner):
    tail = ":" + ",".join(f"{key}={value}" for key, value in options.items()) if options else ""
    text = f"{hook}=" * bool(hook) + f"{owner}/" * bool(owner) + name + tail
    assert StrategyText(name, options, hook, owner) == StrategyText.parse(text)


@attrs.frozen(eq=False)
class Configured:
    k: int = attrs.field(default=10, converter=int)
    share: float = attrs.field(default=0.25, converter=float)
    relu: bool = False
    limit: int | None = None
    _inner: str = attrs.field(default="a", alias="outer")
    cache: dict = attrs.field(init=False, factory=dict)


def test_canonical_text_spells_out_every_option_but_none_and_internals():
    assert canonical("mine", Configured()) == "mine:k=10,share=0.25,relu=false,outer=a"


def test_canonical_text_of_a_strategy_without_options_is_its_name():
    assert canonical("plain", object()) == "plain"


def test_canonical_text_rebuilds_the_same_options():
    options = StrategyText.parse(canonical("mine", Configured(k=3, share=0.5))).options
    rebuilt = Configured(k=options["k"], share=options["share"])
    assert chosen_options(Configured(k=3, share=0.5)) == chosen_options(rebuilt)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, "true"), (0.5, "0.5"), (1e-05, "1e-05"), (3, "3"), ("l2", "l2")]
)
def test_option_values_are_shown_as_they_are_typed(value, expected):
    assert expected == show(value)
