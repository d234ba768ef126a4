"""What was kept and why, row by row, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from headwise import Selection, hookimpl
from headwise.attention_math import entropy


@attrs.frozen
class RowRecord:
    """What one row of a batch kept after its last stage, and what its last stage that read attention saw.

    ``kept``: surviving visual tokens, ascending, counted among those the row entered the model with. ``stages``: the
    same after each stage. ``heads``: those that decided, ascending. ``notes``: what strategies and stages noted.
    ``concentration``: share of all heads' attention to the image that went to the kept tokens. ``entropy``: of the
    token scores, 1 when even, 0 when one token has it all. Without attention to the image, or a choice to make, the
    last two are None.
    """

    kept: list[int]
    stages: list[list[int]] = attrs.field(factory=list)
    heads: list[int] = attrs.field(factory=list)
    notes: dict[str, Any] = attrs.field(factory=dict)
    concentration: float | None = None
    entropy: float | None = None


class Recorder:
    """Collects a record per batch row, merged over stages; holds numbers only, no tensor of the model.

    Rows of which every visual token stays pass through no stage and have no record. Call :meth:`take` after each
    forward pass, or the next pass's rows are merged into this one's.
    """

    def __init__(self) -> None:
        self._records: dict[int, RowRecord] = {}

    def take(self) -> dict[int, RowRecord]:
        """Batch row -> record of everything since the last ``take``, which is forgotten here."""
        records, self._records = self._records, {}
        return dict(sorted(records.items()))

    def clear(self) -> None:
        """Forget what was recorded."""
        self._records = {}

    @hookimpl
    def selected(self, selection: Selection) -> None:
        """Record one stage's outcome for the rows it chose from."""
        seen = _seen(selection)
        for place, (row, kept) in enumerate(zip(selection.rows, selection.kept.tolist(), strict=True)):
            before = self._records.get(row) or RowRecord(kept)
            now = {name: values[place] for name, values in seen.items()}
            now["notes"] = before.notes | now["notes"]
            self._records[row] = attrs.evolve(before, kept=kept, stages=[*before.stages, kept], **now)


def _seen(selection: Selection) -> Mapping[str, list[Any]]:
    """Fields of the rows' records that this stage tells, one value per row each."""
    seen: dict[str, list[Any]] = {}
    if selection.attention is not None:
        seen["concentration"] = _concentration(selection.attention.detach().cpu().float(), selection)
        if selection.token_scores is not None:
            seen["entropy"] = [_entropy(row) for row in selection.token_scores.detach().cpu().float()]
    if selection.heads is not None:
        seen["heads"] = [row.nonzero().flatten().tolist() for row in selection.heads.kept.cpu()]
    noted = {**(selection.heads.notes if selection.heads is not None else {}), **selection.notes}
    seen["notes"] = [
        {key: _plain(values[place]) for key, values in noted.items()} for place in range(len(selection.rows))
    ]
    return seen


def _concentration(attention: Tensor, selection: Selection) -> list[float | None]:
    """Of attention (rows, h, v), the share on the kept tokens, per row."""
    on_token = attention.sum(dim=1)
    entered, kept = selection.entered.cpu(), selection.kept.cpu()
    stays = torch.stack([torch.isin(*row) for row in zip(entered, kept, strict=True)])
    masses = zip((on_token * stays).sum(dim=-1).tolist(), on_token.sum(dim=-1).tolist(), strict=True)
    return [part / whole if whole > 0 else None for part, whole in masses]


def _entropy(scores: Tensor) -> float | None:
    """Entropy of token scores (v,), as a share of the highest there is."""
    if len(scores) < 2 or scores.min() < 0 or not 0 < scores.sum() < math.inf:
        return None
    return float(entropy(scores / scores.sum())) / math.log(len(scores))


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch as Python ones."""
    return value.tolist() if hasattr(value, "tolist") else value
