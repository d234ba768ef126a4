"""Damaged strategy texts, drawn from a seed: each gives a strategy that can be written down again, or a sentence."""

from __future__ import annotations

import functools
import random
import time
import traceback

from headwise.commands.plan import outlook
from headwise.errors import HeadwiseError
from headwise.families import geometry_of
from headwise.hookspecs import HOOKS
from headwise.listing import rows
from headwise.pipeline import Pipeline
from headwise.recipe import RECIPE_HOOKS, Recipe
from headwise.registry import resolve
from headwise.text import chosen_options

SECONDS = 20
"""A text that takes longer hangs."""

NUMBERS = (
    *("0", "1", "2", "-1", "0.5", "1.5", "1e400", "-1e400", "inf", "-inf", "nan", "1e-400", "true", "none", "None", ""),
    *(str(2**31 - 1), str(2**31), str(2**53 + 1), str(2**63 - 1), str(-(2**63)), "9" * 25, "9" * 5000, "0x10", "1_0"),
    *("٣", "½", "0" * 4000 + "1", "1/2/3", "8/16/24", "1/" * 900 + "1", "0.1234567891234", "1e-7", "+4", " 7 ", "4.0"),
)
OTHERS = (
    *("/dev/zero", "/dev/null", "/", ".", "/nowhere", "~nosuch/x", "x" * 3000, "/proc/self/mem"),
    *("\ud800", "\x00", "a\nb", "]", "[]"),
    *("[" * 3000, "[" * 8 + "]" * 8, "[snapkv:budget=8]", "snapkv", "[adakv:of=[adakv:of=snapkv]]", "window"),
    *("attention", "avg", "relative", "keys", "l2", "strength", "centre", "\x1b[31m", "=", ":", "💥", "x=y"),
)
LETTERS = "[]:,=/ \t\n\x00\ud800abz019.-+e\u202e💥"


@functools.cache
def known():
    """(hook, name, options) of every installed strategy."""
    return [
        (row.hook, row.name, tuple(option.name for option in row.description.options or ()))
        for hook in HOOKS
        for row in rows(hook)
    ]


def text_of(seed: int) -> str:
    """The damaged text of a seed."""
    draw = random.Random(seed)
    hook, name, options = draw.choice(known())
    values = NUMBERS if draw.random() < 0.7 else OTHERS
    chosen = draw.sample(options, min(len(options), draw.choice((0, 1, 1, 1, 2, 3))))
    given = ",".join(f"{option}={draw.choice(values)}" for option in chosen)
    text = f"{draw.choice(('', f'{hook}=', 'headwise/'))}{name}" + (f":{given}" if given else "")
    if draw.random() < 0.1:
        text = "adakv:of=[" * draw.choice((1, 2, 9, 60, 500)) + text + "]" * draw.choice((1, 2, 9, 60, 500))
    for _ in range(draw.choice((0, 0, 0, 1, 2, 5))):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(LETTERS) * draw.choice((1, 1, 3)) + text[at + draw.choice((0, 1, 3)) :]
    return text


def attempt(seed: int) -> str | None:
    """What is wrong with what the text of a seed gives, or None."""
    text, start = text_of(seed), time.monotonic()
    try:
        wrong = _use(text)
    except HeadwiseError as error:
        wrong = _badly_said(str(error))
    except Exception:
        wrong = traceback.format_exc().strip().splitlines()[-1]
    if time.monotonic() - start > SECONDS:
        wrong = f"took longer than {SECONDS} s"
    return wrong and f"seed {seed}, {text[:200]!r}: {wrong}"


def _use(text: str) -> str | None:
    """Build the strategy, read its canonical text back, and plan with it."""
    strategy = resolve(text)
    again = resolve(f"{strategy.hook}={strategy.text}")
    if again.text != strategy.text or chosen_options(again.plugin) != chosen_options(strategy.plugin):
        return f"its canonical text {strategy.text!r} means {again.text!r}"
    strategy.text.encode()
    if strategy.hook in RECIPE_HOOKS:
        vision = strategy.hook != "kv_eviction"
        recipe = Recipe.of(f"{strategy.hook}={strategy.text}", keep=20 if vision else None)
        geometry = geometry_of("demo-llava" if vision else "demo-pythia")
        outlook(Pipeline(recipe), geometry, text=8, seen=None, formula="gated", itemsize=2)
    return None


def _badly_said(sentence: str) -> str | None:
    """Why a refusal is no sentence that a terminal can show."""
    sentence.encode()
    if not sentence.isprintable():
        return f"the sentence {sentence!r} has characters that a terminal acts on"
    return None if 10 < len(sentence) < 20_000 else f"a sentence of {len(sentence)} characters"
