"""What a stage decided, group by group, put together: survivors, merged hidden states, and what observers see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np
import torch

from headwise.plan import Kept, Selection, Stage
from headwise_adapters.pruning.choices import Decision, Integers, Merge
from headwise_adapters.pruning.evidence import Group, StageEvidence
from headwise_adapters.pruning.forward import Forward
from headwise_adapters.pruning.given import Flags


@attrs.frozen(eq=False)
class Outcome:
    """One group's evidence and what was kept of it; ``kept`` int64 (b, keep) among the group's visual tokens."""

    group: Group
    evidence: StageEvidence
    found: Kept
    kept: Integers

    @property
    def places(self) -> Integers:
        """Where the kept tokens stand among the tokens left, int64 (b, keep)."""
        return np.take_along_axis(self.group.columns, self.kept, axis=1)


class Outcomes:
    """The outcomes of all groups of one stage."""

    def __init__(self, forward: Forward, stage: Stage) -> None:
        self._forward, self._stage = forward, stage
        self._all: list[Outcome] = []

    def add(self, group: Group, evidence: StageEvidence, found: Kept) -> None:
        """Take in one group's outcome."""
        self._all.append(Outcome(group, evidence, found, found.positions.cpu().numpy()))

    def decision(self) -> Decision:
        """Who stays, and what of the dropped they take up."""
        merges = [
            Merge(outcome.group.rows, outcome.group.columns, outcome.places, outcome.found.weights)
            for outcome in self._all
            if outcome.found.weights is not None
        ]
        return Decision({row: np.flatnonzero(stays) for row, stays in self._stays.items()}, merges)

    @cached_property
    def _stays(self) -> dict[int, Flags]:
        """Row -> bool over the tokens left: visual tokens that stay, those included that no group chose from.

        Read once all outcomes are added.
        """
        stays: dict[int, Flags] = {}
        for outcome in self._all:
            for row, columns, kept in zip(outcome.group.rows, outcome.group.columns, outcome.places, strict=True):
                if row not in stays:
                    stays[row] = np.zeros(self._forward.layout.length, dtype=bool)
                    stays[row][self._forward.layout.image(row)] = True
                stays[row][columns] = False
                stays[row][kept] = True
        return stays

    def selections(self) -> Iterator[Selection]:
        """What observers see before anything is dropped. Rows decided picture by picture are put together again."""
        if not self._stage.per_image:
            yield from (self._selection(outcome) for outcome in self._all)
            return
        found: dict[tuple[int, int], list[tuple[int, Integers, Integers]]] = {}
        for row, stays in self._stays.items():
            numbers = self._forward.visual_numbers(row)
            kept = numbers[stays[self._forward.layout.image(row)]]
            found.setdefault((len(numbers), len(kept)), []).append((row, numbers, kept))
        for members in found.values():
            rows = [row for row, *_ in members]
            yield Selection(
                layer=self._stage.layer,
                rows=tuple(rows),
                entered=torch.from_numpy(np.stack([numbers for _, numbers, _ in members])),
                kept=torch.from_numpy(np.stack([kept for *_, kept in members])),
                attention=None,
                token_scores=None,
                heads=None,
                notes=self._notes(rows),
            )

    def _selection(self, outcome: Outcome) -> Selection:
        numbers = outcome.group.numbers
        return Selection(
            layer=self._stage.layer,
            rows=tuple(outcome.group.rows),
            entered=torch.from_numpy(numbers),
            kept=torch.from_numpy(np.take_along_axis(numbers, outcome.kept, axis=1)),
            attention=outcome.evidence.mean_attention,
            token_scores=outcome.found.scores,
            heads=outcome.evidence.choice,
            notes=outcome.evidence.notes,
        )

    def _notes(self, rows: Sequence[int]) -> Mapping[str, Sequence[object]]:
        """Notes of some rows; where a row has several pictures, those of its first."""
        notes: dict[str, dict[int, object]] = {}
        for outcome in self._all:
            for key, values in outcome.evidence.notes.items():
                for row, value in zip(outcome.group.rows, values, strict=True):
                    notes.setdefault(key, {}).setdefault(row, value)
        return {key: [values.get(row) for row in rows] for key, values in notes.items()}
