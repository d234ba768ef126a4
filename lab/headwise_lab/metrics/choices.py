"""The option that a free answer chooses, by the rules of the official scripts; "" where they find none."""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCDE"
SAYS = re.compile(r"The answer is ([A-Z]).")
MARKS = (
    *(("", ""), ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")),
    *((":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")),
)
"""What may stand around a letter, tried in this order (MMBench's evaluation)."""
QUANTIFIER_WORDS = 3  # in an answer with more words, "A" alone is the article


def science_letter(prediction: str) -> str:
    """ScienceQA's reading (LLaVA eval_science_qa.py): a letter, "B. text", or one "The answer is B."."""
    text = prediction.strip()
    if text and text[0] in LETTERS and (len(text) == 1 or text[1:3] == ". "):
        return text[0]
    said = SAYS.findall(text)
    return said[0] if len(said) == 1 else ""


def option_letter(prediction: str, options: Sequence[str]) -> str:
    """MMBench's reading: the one letter that stands alone, else the one option whose text occurs.

    These are the rules that MMBench tries before it asks a language model; what they cannot read stays unread.
    """
    return _lone_letter(prediction.split()) or _only_text(prediction.lower(), options)


def _lone_letter(words: Sequence[str]) -> str:
    for before, after in MARKS:
        found = [letter for letter in LETTERS if f"{before}{letter}{after}" in words]
        article = "A" in words and len(words) > QUANTIFIER_WORDS and not (before or after)
        if len(found) == 1 and not article:
            return found[0]
    return ""


def _only_text(prediction: str, options: Sequence[str]) -> str:
    found = [letter for letter, option in zip(LETTERS, options, strict=False) if option.lower() in prediction]
    return found[0] if len(found) == 1 else ""
