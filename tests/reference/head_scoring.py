"""Head scores, slowly: the table of specs/visual_pruning.md 3.1 and seed 003 in loops over plain Python floats.

A row is a list of attention values of one head over visual tokens; a *board* is the list of rows of all heads.
"""

from __future__ import annotations

import math
from statistics import median, pstdev, stdev

NEVER = float("-inf")


def shares(row):
    mass = math.fsum(row)
    return [x / mass for x in row] if mass > 1e-37 else [1 / len(row)] * len(row)


def entropy_of(p):
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def squares(p):
    return math.fsum(q * q for q in p)


def cosine(p, q):
    dot = math.fsum(a * b for a, b in zip(p, q, strict=True))
    return dot / math.sqrt(squares(p) * squares(q))


def sum_(row):
    return math.fsum(row)


def variance(row):
    if len(row) == 1:
        return 0.0
    mean = math.fsum(row) / len(row)
    return math.fsum((x - mean) ** 2 for x in row) / (len(row) - 1)


def entropy(row):
    return 0.0 if len(row) == 1 else 1 - entropy_of(shares(row)) / math.log(len(row))


def max_attention(row):
    return max(row)


def attention_range(row):
    return max(row) - min(row)


def sparsity(row):
    return squares(shares(row))


def sparsity_hoyer(row):
    if len(row) == 1:
        return 0.0
    root = math.sqrt(len(row))
    return (root - 1 / math.sqrt(squares(shares(row)))) / (root - 1)


def sparsity_raw(row):
    return math.sqrt(squares(row))


def top_k_sum(row, k=10):
    return math.fsum(sorted(row, reverse=True)[:k])


def weighted_quality(row):
    p = shares(row)
    covered = sum(q >= 0.1 * max(p) for q in p)
    return 0.4 * max(p) + 0.4 * squares(p) + 0.2 / covered


def gini_coefficient(row):
    """Half the mean absolute difference of all pairs, relative to the mean: another formula of the same number."""
    p, n = shares(row), len(row)
    return math.fsum(abs(a - b) for a in p for b in p) / (2 * n)


def kurtosis(p):
    mean = math.fsum(p) / len(p)
    second = math.fsum((q - mean) ** 2 for q in p) / len(p)
    fourth = math.fsum((q - mean) ** 4 for q in p) / len(p)
    return fourth / second**2 if math.sqrt(second) > 1e-5 * mean else 0.0


def min_max(values):
    low, high = min(values), max(values)
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return [0.0] * len(values)
    return [(value - low) / (high - low) for value in values]


def multi_objective(board):
    heads = [shares(row) for row in board]
    distinct = []
    for i, p in enumerate(heads):
        others = [cosine(p, q) for j, q in enumerate(heads) if j != i]
        distinct.append(1 / ((math.fsum(others) / len(others) if others else 0.0) + 1e-6))
    h = min_max([entropy_of(p) for p in heads])
    k = min_max([kurtosis(p) for p in heads])
    d = min_max(distinct)
    s = min_max([squares(p) for p in heads])
    return [0.4 * (0.7 * h[i] + 0.3 * k[i]) + 0.3 * d[i] + 0.3 * s[i] for i in range(len(board))]


def graph_based(board, threshold=0.1, rounds=2, relu=False):
    heads = [shares(row) for row in board]
    n, count = len(board[0]), len(board)
    columns = [
        [squares(p) for p in heads],
        [entropy_of(p) for p in heads],
        [max(p) for p in heads],
        [math.fsum((q - 1 / n) ** 2 for q in p) / n for p in heads],
        [sum(q > (1 + 1e-5) / n for q in p) / n for p in heads],
    ]
    features = [_z(column) for column in columns]
    neighbours = [[j for j in range(count) if j != i and cosine(heads[i], heads[j]) > threshold] for i in range(count)]
    for _ in range(rounds):
        for index, old in enumerate(features):
            new = []
            for i in range(count):
                near = neighbours[i]
                value = old[i] + (math.fsum(old[j] for j in near) / len(near) if near else 0.0)
                new.append(max(value, 0.0) if relu else value)
            features[index] = new
    return [math.fsum(feature[i] for feature in features) / len(features) for i in range(count)]


def _z(column):
    mean, deviation = math.fsum(column) / len(column), pstdev(column)
    if deviation <= 1e-5 * max(map(abs, column)):
        return [0.0] * len(column)
    return [(value - mean) / deviation for value in column]


def hierarchical(board, target=None):
    heads = [shares(row) for row in board]
    n, count = len(board[0]), len(board)
    k = max(count // 2, 1) if target is None else target
    m = min(count, max(2 * k, k + 4))
    log_n = math.log(n) if n > 1 else 1.0
    coarse = [0.6 * squares(p) + 0.4 * (1 - entropy_of(p) / log_n) for p in heads]
    cut = sorted(coarse, reverse=True)[m - 1]
    alive = [i for i in range(count) if coarse[i] >= cut - 1e-5]
    unit = {i: [q / math.sqrt(squares(heads[i])) for q in heads[i]] for i in alive}
    centre = [math.fsum(unit[i][j] for i in alive) / len(alive) for j in range(n)]
    rich = _among([entropy_of(heads[i]) for i in alive])
    far = _among([math.log(n) - entropy_of(heads[i]) for i in alive])
    apart = _among([math.dist(unit[i], centre) for i in alive])
    steady = _among([1 / (pstdev(heads[i]) + 1e-6) for i in alive])
    scores = [NEVER] * count
    for at, i in enumerate(alive):
        scores[i] = 0.3 * rich[at] + 0.25 * far[at] + 0.25 * apart[at] + 0.2 * steady[at]
    return scores


def _among(values):
    low, high = min(values), max(values)
    if high - low <= 1e-5 * max(high, 1):
        return [0.0] * len(values)
    return [(value - low) / (high - low) for value in values]


PER_HEAD = {
    "sum": sum_,
    "variance": variance,
    "entropy": entropy,
    "max_attention": max_attention,
    "attention_range": attention_range,
    "sparsity": sparsity,
    "sparsity:form=hoyer": sparsity_hoyer,
    "sparsity:form=raw": sparsity_raw,
    "top_k_sum": top_k_sum,
    "top_k_sum:k=3": lambda row: top_k_sum(row, 3),
    "weighted_quality": weighted_quality,
    "gini_coefficient": gini_coefficient,
}
TOGETHER = {
    "multi_objective": multi_objective,
    "graph_based": graph_based,
    "graph_based:threshold=0.6,rounds=3": lambda board: graph_based(board, 0.6, 3),
    "graph_based:rounds=1,relu=true": lambda board: graph_based(board, rounds=1, relu=True),
    "graph_based:rounds=0": lambda board: graph_based(board, rounds=0),
    "hierarchical": hierarchical,
}
ALL = {
    **{text: lambda board, score=score: [score(row) for row in board] for text, score in PER_HEAD.items()},
    **TOGETHER,
}


def head_count(scores, low, high):
    """Step 3 of seed 003: the median of gap, quality and contribution, in low..high."""
    ranked = sorted((score for score in scores if score > NEVER), reverse=True)
    n = len(ranked)
    if n <= 3:
        gap = n
    else:
        gaps = [ranked[i] - ranked[i + 1] for i in range(n - 1)]
        wide = math.fsum(gaps) / len(gaps) + 0.8 * stdev(gaps)
        gap = next((i + 1 for i, width in enumerate(gaps) if width > wide), high)
    quality = sum(s > math.fsum(ranked) / n - 0.3 * stdev(ranked) for s in ranked) if n > 1 else n
    shifted = [score - min(ranked[-1], 0) for score in ranked]
    total, held, contribution = math.fsum(shifted), 0.0, 1
    for score in shifted:
        held += score
        contribution += held <= 0.85 * total
    contribution = n if total == 0 else contribution
    return min(n, high, max(low, median([gap, quality, contribution])))


def combination_quality(board, scores, chosen):
    """Step 4 of seed 003, of scores already in 0..1."""
    heads = [shares(row) for row in board]
    pairs = [(i, j) for i in chosen for j in chosen if i < j]
    diversity = 1 - math.fsum(cosine(heads[i], heads[j]) for i, j in pairs) / len(pairs) if pairs else 0.0
    values = [scores[i] for i in chosen]
    spread = ((stdev(values) if len(values) > 1 else 0.0) + max(values) - min(values)) / 2
    sharpness = 1.0
    for measure in (lambda row: pstdev(row) ** 2, max):
        largest = max(map(measure, board))
        mean = math.fsum(measure(board[i]) for i in chosen) / len(chosen)
        sharpness *= mean / largest if largest > 0 else 0.0
    return 0.3 * diversity + 0.3 * spread + 0.4 * sharpness


def adaptive(board, average, visual_tokens=576):
    """Seed 003, steps 1-4, from the average of visual tokens processed: (scores, strategy, count)."""
    if average >= 0.99 * 192 * visual_tokens / 576:
        names, low, high = ["sparsity", "hierarchical"], 14, 26
    elif average >= 0.99 * 128 * visual_tokens / 576:
        names, low, high = ["sparsity", "hierarchical", "top_k_sum", "max_attention"], 8, 26
    else:
        names, low, high = ["graph_based", "multi_objective", "attention_range"], 6, 18
    low, high = (max(1, math.floor(bound * len(board) / 32 + 0.5)) for bound in (low, high))
    best = None
    for name in names:
        raw = ALL[name](board)
        count = head_count(raw, low, high)
        chosen = sorted(range(len(board)), key=lambda head: (-raw[head], head))[:count]
        finite = [score for score in raw if score > NEVER]
        scale = dict(zip([i for i, score in enumerate(raw) if score > NEVER], min_max(finite), strict=True))
        unit = [scale.get(head, 0.0) for head in range(len(board))]
        quality = combination_quality(board, unit, chosen)
        if best is None or quality > best[0] + 1e-5:
            best = quality, [unit[i] if i in chosen else NEVER for i in range(len(board))], name, count
    return best[1:]
