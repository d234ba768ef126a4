"""A proxy for judges of free answers: how much of the wanted text occurs, word by word, whatever it means."""

from __future__ import annotations

from headwise_lab.metrics.answers import vqa_answer

AND, OR = "<AND>", "<OR>"


def string_match_proxy(question: str, answer: str, prediction: str) -> float:
    """Share of the elements of ``answer`` that ``prediction`` contains as whole words, 0 to 1.

    MM-Vet writes <AND> between elements that are all wanted and <OR> between wordings of one element. Texts are
    compared as TextVQA's are: lower case, digits for number words, no punctuation or articles. Long reference answers
    hardly ever occur word by word, so figures are far below a judge's and can only be compared with each other. Judges
    also get the question; here it is not used.
    """
    said = f" {vqa_answer(prediction)} "
    elements = [element.split(OR) for element in answer.split(AND)]
    found = [any(f" {vqa_answer(wording)} " in said for wording in wordings) for wordings in elements]
    return sum(found) / len(found)
