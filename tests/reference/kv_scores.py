"""Scores of cache entries in plain Python, one row and one KV head at a time, written from the papers.

A ``Row`` has one list per KV head of what is held there, oldest first, without empty slots; what belongs to query
heads has one list per query head, and consecutive query heads share a KV head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass
class Row:
    seen: int
    positions: list  # (kv_heads, entries)
    keys: list  # (kv_heads, entries, d)
    values: list  # (kv_heads, entries, d)
    attention: list | None = None  # (heads, queries, entries) of the last queries, none of them missing
    accumulated_attention: list | None = None  # (heads, entries)
    queries: list | None = None  # (heads, queries, d), not rotated

    @property
    def group(self):
        return len(self.attention or self.accumulated_attention or self.queries) // len(self.positions)

    def sharing(self, values, kv_head):
        return values[kv_head * self.group : (kv_head + 1) * self.group]


def rotated(vector, distance):
    """Rotary embeddings of the first half of a vector, its two quarters paired, base 100; the rest passes."""
    half = len(vector) // 4
    turned = list(vector)
    for pair in range(half):
        angle = distance * 100 ** (-pair / half)
        x, y = vector[pair], vector[half + pair]
        turned[pair] = x * math.cos(angle) - y * math.sin(angle)
        turned[half + pair] = y * math.cos(angle) + x * math.sin(angle)
    return turned


def dot(left, right):
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def norm(vector):
    return math.sqrt(dot(vector, vector))


def softmax(values):
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / math.fsum(powers) for power in powers]


def knorm(row):
    """Devoto et al. 2024: low norm stays."""
    return [[-norm(key) for key in keys] for keys in row.keys]


def keydiff(row):
    """Park et al. 2025: the less like the mean of unit keys, by cosine, the higher."""
    scores = []
    for keys in row.keys:
        units = [[x / norm(key) for x in key] for key in keys]
        anchor = [fmean(column) for column in zip(*units, strict=True)]
        scores.append([1 - dot(unit, anchor) / norm(anchor) for unit in units])
    return scores


def tova(row):
    """Oren et al. 2024: the last query's attention, averaged over all heads of the layer."""
    per_token = {}
    for head, queries in enumerate(row.attention):
        for position, share in zip(row.positions[head // row.group], queries[-1], strict=True):
            per_token.setdefault(position, []).append(share)
    heads = len(row.attention)
    return [[math.fsum(per_token[position]) / heads for position in positions] for positions in row.positions]


def h2o(row, kept, latest=0.5, sinks=0):
    """Zhang et al. 2023: accumulated attention; the latest ``latest`` of ``kept`` entries stay as they are."""
    recent = min(math.floor(latest * kept + 1e-9), kept - sinks)
    return [
        [
            math.inf
            if position >= row.seen - recent
            else fmean(head[slot] for head in row.sharing(row.accumulated_attention, kv))
            for slot, position in enumerate(positions)
        ]
        for kv, positions in enumerate(row.positions)
    ]


def snapkv(row, recent, kernel=5, pool="avg"):
    """Li et al. 2024: mean attention of the observation window, pooled over neighbours outside of it."""
    scores = []
    for kv, positions in enumerate(row.positions):
        observed = []
        for slot, position in enumerate(positions):
            judges = [q for q in range(len(row.attention[0])) if row.seen - len(row.attention[0]) + q >= position]
            shares = [head[q][slot] for head in row.sharing(row.attention, kv) for q in judges]
            observed.append(0.0 if position >= row.seen - recent else fmean(shares))
        padded = [0.0] * (kernel // 2) + observed + [0.0] * (kernel // 2)
        windows = [padded[slot : slot + kernel] for slot in range(len(observed))]
        scores.append([max(window) if pool == "max" else fmean(window) for window in windows])
    return scores


def expected_attention(row, future, sinks=4, epsilon=0.0):
    """Devoto et al. 2025: E exp(q.k / sqrt d) for Gaussian queries, rotated to the next positions on average.

    The quadratic form k.cov.k is the mean of (k.c)^2 over the centred, rotated queries c.
    """

    def ahead(vector):
        turned = [rotated(vector, row.seen + step) for step in range(future)]
        return [fmean(column) for column in zip(*turned, strict=True)]

    scores = []
    for kv, positions in enumerate(row.positions):
        judged = [slot for slot, position in enumerate(positions) if position >= sinks]
        shares = [[0.0] * len(positions) for _ in range(row.group)]
        for member, queries in enumerate(row.sharing(row.queries, kv)):
            used = queries[-max(1, min(len(queries), row.seen - sinks)) :]
            mean = [fmean(column) for column in zip(*used, strict=True)]
            centred = [ahead([x - m for x, m in zip(query, mean, strict=True)]) for query in used]
            turned, size = ahead(mean), len(mean)
            logits = [
                dot(turned, row.keys[kv][slot]) / math.sqrt(size)
                + fmean(dot(query, row.keys[kv][slot]) ** 2 for query in centred) / (2 * size)
                for slot in judged
            ]
            for slot, share in zip(judged, softmax(logits) if judged else [], strict=True):
                shares[member][slot] = share
        mean_share = [fmean(column) for column in zip(*shares, strict=True)]
        scores.append([(share + epsilon) * norm(v) for share, v in zip(mean_share, row.values[kv], strict=True)])
    return scores


def lagkv(row, lag, sinks=4):
    """Liang et al. 2025: deviation of a token within the range of the next partition, ranked in its partition."""
    scores = []
    for positions, keys, values in zip(row.positions, row.keys, row.values, strict=True):
        held = sum(position < sinks for position in positions)
        body, complete = len(positions) - held, (len(positions) - held) // lag
        found = [math.inf] * held + [None] * body
        for number in range(complete - 1):
            here = range(held + number * lag, held + (number + 1) * lag)
            total = [0.0] * lag
            for states in (keys, values):
                after = [states[slot + lag] for slot in here]
                for index, share in enumerate(softmax([_deviation(states[slot], after) for slot in here])):
                    total[index] += share
            order = sorted(range(lag), key=lambda index: total[index])
            for rank, index in enumerate(order):
                found[here[index]] = rank / lag
        scores.append([slot - held + 1 if score is None else score for slot, score in enumerate(found)])
    return scores


def _deviation(vector, after):
    columns = list(zip(*after, strict=True))
    spreads = [(min(column), max(column)) for column in columns]
    return stdev(
        [(x - low) / (high - low) if high > low else 0.0 for x, (low, high) in zip(vector, spreads, strict=True)]
    )


def pooled(scores, protected, capacity, floor):
    """Feng et al. 2024: entries each head keeps when all compete: its own best ``floor`` share, then the layer's best.

    ``scores`` and ``protected`` (kv_heads, entries). Returns the kept slots of each head; ties go to the lower head,
    then to the earlier entry.
    """
    kept = [set() for _ in scores]
    ranked = []
    for head, row in enumerate(scores):
        order = sorted(range(len(row)), key=lambda slot: (not protected[head][slot], -row[slot], slot))
        safe = max(sum(protected[head]), math.floor(floor * capacity + 1e-9))
        kept[head].update(order[:safe])
        ranked += [(-row[slot], head, slot) for slot in order[safe:]]
    room = capacity * len(scores) - sum(map(len, kept))
    for _, head, slot in sorted(ranked)[: max(0, room)]:
        kept[head].add(slot)
    return kept
