"""Predictions as the official scripts read them: POPE, MME, GQA and TextVQA, each by its own rules.

The rules are those of LLaVA-1.5's evaluation (github.com/haotian-liu/LLaVA, llava/eval and scripts). Their quirks are
kept, because published figures contain them. Predictions are stripped first, as LLaVA strips what it generates.
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
PUNCTUATION = ';/[]"{}()=+\\_-><@`!'  # commas and question marks are removed before
PERIOD = re.compile(r"\.(?!\d)")  # the look-behind in the official pattern is misspelt and never matches
PERIODS = 32  # the official call passes re.UNICODE, which is 32, in place of the count


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
    """Remove every mark that stands beside a space anywhere; others become spaces; remove stops outside numbers."""
    clean = text
    for mark in PUNCTUATION:
        goes = f"{mark} " in text or f" {mark}" in text
        clean = clean.replace(mark, "" if goes else " ")
    return PERIOD.sub("", clean, count=PERIODS)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy: each person is left out in turn, and min(1, others who agree / 3) is averaged."""
    said = vqa_answer(prediction)
    agrees = [vqa_answer(answer) == said for answer in answers]
    return sum(min(1.0, (sum(agrees) - left_out) / ENOUGH) for left_out in agrees) / len(agrees)
