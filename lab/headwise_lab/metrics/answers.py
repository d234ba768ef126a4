"""Predictions as the official scripts read them: POPE, MME, GQA and TextVQA, each by its own rules.

The rules are those of LLaVA-1.5's evaluation (github.com/haotian-liu/LLaVA, llava/eval and scripts), quirks included,
because published figures contain the quirks. Predictions are stripped first, as LLaVA strips what it generates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headwise_lab.metrics.contractions import RESPELT

YES, NO, OTHER = "yes", "no", "other"

ENOUGH = 3  # people who must agree for full soft accuracy
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`!'  # commas and question marks are gone before
PERIOD = re.compile(r"\.(?!\d)")  # the official pattern's look-behind is misspelt and never applies
PERIODS = 32  # the official call passes re.UNICODE, which is 32, where the count belongs


def pope_yes_no(prediction: str) -> str:
    """POPE's reading (LLaVA eval_pope.py): "no" if the first sentence has the word No, no or not, else "yes"."""
    first = prediction.strip().split(".")[0]
    words = first.replace(",", "").split(" ")
    return NO if {"No", "no", "not"} & set(words) else YES


def mme_yes_no(prediction: str) -> str:
    """MME's reading (its calculation.py): "yes" or "no" within the first four characters, else "other" (wrong)."""
    start = prediction.strip().lower()[:4]
    if YES in start:
        return YES
    return NO if NO in start else OTHER


def gqa_answer(text: str) -> str:
    """GQA's reading (LLaVA convert_gqa_for_eval.py): lower case, full stops at the end dropped."""
    return text.strip().rstrip(".").lower()


def vqa_answer(text: str) -> str:
    """TextVQA's reading (EvalAIAnswerProcessor): lower case, no punctuation or articles, number words as digits."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (NUMBERS.get(word, word) for word in _without_punctuation(text).split())
    return " ".join(RESPELT.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    """A mark beside a space goes, everywhere in the text; any other becomes a space; full stops go outside numbers."""
    clean = text
    for mark in PUNCTUATION:
        goes = f"{mark} " in text or f" {mark}" in text
        clean = clean.replace(mark, "" if goes else " ")
    return PERIOD.sub("", clean, count=PERIODS)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy: min(1, agreeing people / 3), averaged over leaving out each of the people in turn."""
    said = vqa_answer(prediction)
    agrees = [vqa_answer(answer) == said for answer in answers]
    return sum(min(1.0, (sum(agrees) - left_out) / ENOUGH) for left_out in agrees) / len(agrees)
