"""Whether what came out of a situation is what the oracle says."""

from __future__ import annotations

import re

import attrs
import torch
from hypothesis.errors import UnsatisfiedAssumption
from tests.adapters.vision_models import IMAGE, PAD
from tests.situations.families import truth_of
from tests.situations.oracle import Rules, Tie, logits
from tests.situations.refusals import allowed
from tests.situations.run import Row, played
from tests.situations.situation import DOCUMENT, MERGING, Situation
from torch import Tensor

import headwise

ERROR = {torch.float32: 2e-4, torch.bfloat16: 0.12, torch.float16: 0.015}
"""How far logits may be from the truth, as a share of the largest one.

Half precision rounds at every layer, which these small models blow up, the stock ones as well. So there it is the mean
over the vocabulary; of another token's logits it is 0.4.
"""


def judge(situation: Situation) -> str:
    """``right`` or ``refused``; anything else fails."""
    return "refused" if refusal_of(situation) else "right"


def refusal_of(situation: Situation) -> str | None:
    """The sentence with which a situation is refused; None where all that came out of it is right."""
    try:
        threads = played(situation)
    except headwise.HeadwiseError as error:
        if not allowed(situation, error):
            raise AssertionError(f"refused, but not by a sentence on the list: {error}") from error
        return str(error)
    except Exception as error:
        if _stock_fails(situation):
            raise UnsatisfiedAssumption from error
        raise
    for rows in threads:
        if situation.training:
            _check_learning(situation, rows)
        for row in rows if not situation.training else ():
            _check_row(situation, row)
    return None


def _stock_fails(situation: Situation) -> bool:
    """Whether the stock model cannot do it either, as generating with an assistant for several rows."""
    cache = "own" if situation.cache == "headwise" else situation.cache
    plain = attrs.evolve(situation, pruning="", eviction="", positions="keep", cache=cache, nested=False, threads=False)
    try:
        played(plain)
    except headwise.HeadwiseError:
        return False
    except Exception:
        return True
    return False


def _rules(situation: Situation, row: Row) -> Rules | None:
    """What the recipe takes from this row; None where only the slow references of the strategy itself can tell."""
    stock = {"sliding": situation.reads.sliding, "columns": row.columns}  # a window of the model's own counts padding
    if situation.touch == "deepcopy" and situation.cache != "headwise":  # a copy is stock; a cache of its own evicts
        return Rules(**stock)
    if situation.pruning.startswith(MERGING):
        return None
    for layers in row.kept.values():
        for told in layers.values():
            assert all(kept == told[0] for kept in told), "the same prompt was pruned in several ways"
    document = DOCUMENT if situation.touch == "packed" else None
    found = {
        "gone": row.gone,
        "compact": situation.positions == "compact",
        "document": document,
        **({"sliding": situation.reads.sliding} if situation.eviction else stock),
    }
    window = re.search(r"window=(\d+)", situation.eviction)
    if window:
        if "relative" in situation.eviction:
            return None
        sinks = re.search(r"sinks=(\d+)", situation.eviction)
        return Rules(**found, window=int(window[1]), sinks=int(sinks[1]) if sinks else 0)
    if situation.eviction.startswith("knorm"):
        return _scored(situation, row, found)
    return None if situation.eviction else Rules(**found)


def _scored(situation: Situation, row: Row, found: dict[str, object]) -> Rules | None:
    """Rules for keys that leave by their length."""
    budget, every = re.search(r"budget=(\d+)", situation.eviction), re.search(r"every=(\d+)", situation.eviction)
    if int(budget[1]) >= len(row.ids):
        return Rules(**found)
    unknown = situation.family == "gpt_neox" or any(row.gone.values()) or situation.mode == "lookup"
    if unknown or not situation.attends_exactly:
        return None
    events = _evictions(row, int(every[1]) if every else 16)
    return Rules(**found, budget=int(budget[1]), evictions=events)


def _evictions(row: Row, every: int) -> list[int]:
    """Tokens read when entries leave: after every forward of several columns, and after every ``every``-th alone."""
    found, alone = [], 0
    for read, columns in row.forwards:
        alone = 0 if columns > 1 else alone + 1
        if columns > 1 or (every and alone == every):
            found.append(read)
            alone = 0
    return found


@torch.no_grad()
def _check_row(situation: Situation, row: Row) -> None:
    rules = _rules(situation, row)
    if rules is None:
        assert all(torch.isfinite(scores).all() for scores in row.logits.values())
        return
    try:
        expected = logits(truth_of(situation.family, situation.dtype), row.prompts, row.ids, rules)
    except Tie:
        return
    gone = {token for layers in rules.gone.values() for token in layers}
    for place, found in row.logits.items():
        if place not in gone:
            _close(situation, found, expected[place], f"position {place}")
    for _, last in row.spans:
        assert last - 1 not in gone, "what was read last was dropped"
    if situation.mode in ("greedy", "streamer", "lookup") and situation.attends_exactly:
        _check_greed(situation, row, expected)
    if row.sum_of_logits is not None and situation.attends_exactly:
        _check_beams(row, expected, situation)


def _close(situation: Situation, found: Tensor, expected: Tensor, where: str) -> None:
    suppressed = torch.isinf(found)
    errors = (found - expected)[~suppressed].abs()
    worst = float(errors.max() if situation.attends_exactly else errors.mean())
    scale = max(1.0, float(expected.abs().max()))
    assert worst <= ERROR[situation.dtype] * scale, f"logits at {where} are {worst:.4g} off, of {scale:.3g}"


def _check_greed(situation: Situation, row: Row, expected: Tensor) -> None:
    """Every word said is the likeliest, or as good as."""
    for start in range(row.spans[0][1], len(row.ids)):
        if any(first <= start < last for first, last in row.spans):
            continue  # read, not said
        scores = expected[start - 1].clone()
        scores[IMAGE] = float("-inf")
        assert scores[row.ids[start]] >= scores.max() - ERROR[situation.dtype] * scores.max().abs(), (
            f"the word at {start} is not the likeliest"
        )


def _check_beams(row: Row, expected: Tensor, situation: Situation) -> None:
    """The score of a beam is the sum of its words' log-probabilities."""
    said = row.ids[row.spans[0][1] :]
    scores = expected[row.spans[0][1] - 1 : -1].clone()
    total = float(scores.log_softmax(dim=-1).gather(1, said[:, None]).sum())
    assert abs(total - row.sum_of_logits) <= 1e-3 * max(1.0, abs(total)), "a beam is scored otherwise"


def _check_learning(situation: Situation, rows: list[Row]) -> None:
    """The loss over all words of all rows, and its gradient."""
    model = truth_of(situation.family, situation.dtype)
    model.zero_grad()
    parts = []
    for row in rows:
        rules = _rules(situation, row)
        if rules is None:
            return
        try:
            scores = logits(model, row.prompts, row.ids, rules)
        except Tie:
            return
        labels = row.ids[1:].clone()
        supervised = labels != IMAGE
        parts.append(torch.nn.functional.cross_entropy(scores[:-1][supervised], labels[supervised], reduction="none"))
    losses = torch.cat(parts)
    if not len(losses):
        return
    losses.mean().backward()
    mean = float(losses.detach().mean())
    expected, found = model.get_input_embeddings().weight.grad, rows[0].gradient
    expected[PAD] = found[PAD] = 0  # read by nobody
    loose = 1 if situation.attends_exactly else 10
    assert abs(mean - float(rows[0].loss)) <= 5e-4 * loose**2 * mean, "another loss"
    if situation.attends_exactly:
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    model.zero_grad()
