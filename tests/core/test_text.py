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
        ("a:of=[b:k=1,low=2],k=3", StrategyText("a", {"of": "b:k=1,low=2", "k": "3"})),
        ("a:of= [ b ] ,k=3", StrategyText("a", {"of": "b", "k": "3"})),
        ("a:of=b:k=1,k=3", StrategyText("a", {"of": "b:k=1", "k": "3"})),
        ("a:of=[b:of=[c:k=1,low=2],k=3]", StrategyText("a", {"of": "b:of=[c:k=1,low=2],k=3"})),
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
        (
            "a:of=[b:k=1",
            "strategy text 'a:of=[b:k=1' has a bracket without its partner; write NAME:of=[OTHER:a=1,b=2]",
        ),
        (
            "a:of=b:k=1],k=3",
            "strategy text 'a:of=b:k=1],k=3' has a bracket without its partner; write NAME:of=[OTHER:a=1,b=2]",
        ),
        ("a:of=[]", "option 'of=[]' in strategy text 'a:of=[]' is not of the form option=value"),
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


@st.composite
def nested(draw, depth=3):
    """A strategy text and what it must be read into; values may be texts themselves, down to some depth."""
    name, options, shown = draw(words), {}, {}
    for key in draw(st.lists(words, max_size=3, unique=True)):
        deeper = depth and draw(st.booleans())
        options[key] = draw(nested(depth - 1))[0] if deeper else draw(values)
        shown[key] = f"[{options[key]}]" if deeper else options[key]
    tail = ":" + ",".join(f"{key}={value}" for key, value in shown.items()) if shown else ""
    return name + tail, StrategyText(name, options)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(nested())
def test_texts_in_brackets_are_read_as_one_value(drawn):
    text, expected = drawn
    assert expected == StrategyText.parse(text)


@attrs.frozen(eq=False)
class Wrapping:
    of: str = "sum"
    k: int = 1


@settings(deadline=None, max_examples=50, derandomize=True)
@given(nested())
def test_a_text_within_a_canonical_text_reads_back(drawn):
    inner, _ = drawn
    assert {"of": inner, "k": "2"} == StrategyText.parse(canonical("wrap", Wrapping(inner, 2))).options
    outer = canonical("wrap", Wrapping(canonical("wrap", Wrapping(inner, 3)), 4))
    assert StrategyText.parse(StrategyText.parse(outer).options["of"]).options == {"of": inner, "k": "3"}


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
