"""Evidence of one stage, computed only when its plan asks: attention, hidden states, seeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from headwise.layout import Layout
from headwise.pipeline import Pipeline
from headwise.plan import HeadChoice
from headwise_adapters.probe import Probe


class StageEvidence:
    """What a stage may look at, for rows with equally many visual tokens (:class:`headwise.plan.Evidence`)."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        layout: Layout,
        rows: list[int],
        hidden_states: Tensor,
        probe: Probe | None,
        image_seeds: Callable[[], Tensor],
        share: float,
        keep: int,
    ) -> None:
        self.keep = keep
        self.mean_attention: Tensor | None = None
        self.choice: HeadChoice | None = None
        self._pipeline, self._layout = pipeline, layout.rows(rows)
        self._hidden_states, self._probe = hidden_states, probe
        self._image_seeds, self._share = image_seeds, share
        self._rows = torch.tensor(rows, device=hidden_states.device)
        images = [torch.from_numpy(self._layout.image(row)) for row in range(len(rows))]
        self.columns = torch.stack(images).to(hidden_states.device)

    @property
    def batch(self) -> int:
        """Rows."""
        return int(self.columns.shape[0])

    @property
    def visual(self) -> int:
        """Visual tokens of each row."""
        return int(self.columns.shape[1])

    def attention(self) -> Tensor:
        """Token scores (b, v): the chosen queries' attention in the layer before, averaged over the chosen heads."""
        if self._probe is None:
            raise RuntimeError("a stage reads attention without saying so; name it in the stage's reads")
        queries = self._pipeline.queries(self._layout)
        positions = torch.from_numpy(queries.positions).to(self.columns.device)
        rows = self._probe.rows(self._rows, positions, self.columns)
        self.mean_attention = self._pipeline.attend(rows, queries)
        self.choice = self._pipeline.choose_heads(self.mean_attention, self._share, self.seeds)
        return self._pipeline.token_scores(self.mean_attention, self.choice)

    def hidden(self) -> Tensor:
        """Hidden states (b, v, d) of the visual tokens, entering the stage's layer."""
        states = self._hidden_states[self._rows]
        return states.gather(1, self.columns.unsqueeze(-1).expand(-1, -1, states.shape[-1]))

    def seeds(self) -> Tensor:
        """int64 (b,) from each row's images."""
        return self._image_seeds()[self._rows.cpu()]


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes: the same for the same image, whatever batch it comes in."""
    return zlib.crc32(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
