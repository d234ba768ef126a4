"""Records features, saliency and keys of Qwen2.5-VL's vision tower while it runs.

Its blocks attend within windows, for which patches are put in another order, and a few blocks over whole pictures; the
merger then makes one token of every 2 x 2 patches. What is captured is given per token, in the order of the tokens.

The attention module is left alone: its input is remembered, and queries and keys are made from it once more, only when
asked for. That serves every attention implementation alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.vision_utils import get_vision_window_index

from headwise.errors import ModelError
from headwise_adapters import patching
from headwise_adapters.vision.images import Look, captured

if TYPE_CHECKING:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
        Qwen2_5_VisionTransformerPretrainedModel,
        Qwen2_5_VLModel,
        Qwen2_5_VLVisionAttention,
    )

_LOGITS = 1 << 24  # attention computed at once, in numbers: 64 MiB


class QwenCapture:
    """What the tower's last call for images computed (a ``VisionCapture``)."""

    def __init__(self, tower: Qwen2_5_VisionTransformerPretrainedModel, attention: Qwen2_5_VLVisionAttention) -> None:
        self._tower, self._attention = tower, attention
        self._merged = int(tower.spatial_merge_size) ** 2
        self._states: Tensor | None = None
        self._attended: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] | None = None
        self._order: Tensor | None = None
        self._sizes: list[int] = []

    def begin(self, args: patching.Args, kwargs: patching.Kwargs) -> None:
        """Called when the tower starts: note how many tokens each picture has, and how windows order them."""
        grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        tower, order = self._tower, kwargs.get("window_index")
        if order is None:
            order, _ = get_vision_window_index(grid, tower.spatial_merge_size, tower.window_size, tower.patch_size)
        self._order = order
        self._sizes = (grid.prod(dim=-1) // self._merged).tolist()

    def attend(self, args: patching.Args, kwargs: patching.Kwargs) -> None:
        """Called with the input of the last block's attention that sees whole pictures."""
        hidden = args[0] if args else kwargs["hidden_states"]
        self._attended = hidden.detach(), kwargs["cu_seqlens"], kwargs["position_embeddings"]

    def end(self, output: Tensor) -> None:
        """Called with the output of the last block."""
        self._states = output.detach()

    def features(self) -> list[Tensor]:
        """(n, 4 c) per picture: the last block's output, the patches of a token side by side."""
        states = captured(self._states)
        return self._by_picture(states.view(-1, self._merged * states.shape[-1]))

    def saliency(self) -> list[Tensor]:
        """float32 (n,) per picture: attention from all patches of the picture, averaged over heads."""
        query, key, lengths = self._heads()
        chunks = zip(torch.split(query, lengths, dim=1), torch.split(key, lengths, dim=1), strict=True)
        received = torch.cat([_received(q, k, self._attention.scaling) for q, k in chunks])
        return self._by_picture(received.view(-1, self._merged).mean(dim=1))

    def keys(self) -> list[Tensor]:
        """(n, head_dim) per picture, averaged over heads."""
        _, key, _ = self._heads()
        return self._by_picture(key.mean(dim=0).view(-1, self._merged, key.shape[-1]).mean(dim=1))

    def _heads(self) -> tuple[Tensor, Tensor, list[int]]:
        """Queries and keys (heads, patches, head_dim) in the order of the windows, and the chunks that see each other.

        As the attention module makes them (transformers, ``Qwen2_5_VLVisionAttention``).
        """
        hidden, bounds, rotary = captured(self._attended)
        module = self._attention
        rotated = sys.modules[type(module).__module__].apply_rotary_pos_emb_vision
        with torch.no_grad():
            query, key, _ = module.qkv(hidden).view(len(hidden), 3, module.num_heads, -1).unbind(1)
            query, key = rotated(query, key, *rotary)
        return query.transpose(0, 1), key.transpose(0, 1), bounds.diff().tolist()

    def _by_picture(self, tokens: Tensor) -> list[Tensor]:
        """Of tokens (n, ...) in the order of the windows: those of each picture, in their own order."""
        order = captured(self._order).to(tokens.device)
        return list(torch.split(tokens[order.argsort()], self._sizes))


def _received(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention float32 (n,) that n patches receive from all of them, averaged over queries and heads (h, n, d)."""
    heads, count, _ = key.shape
    block = max(1, _LOGITS // (heads * count))
    turned = key.float().transpose(1, 2)
    total = torch.zeros(count, device=key.device, dtype=torch.float32)
    for some in torch.split(query, block, dim=1):
        total += (some.float() @ turned * scaling).softmax(dim=-1).sum(dim=(0, 1))
    return total / (heads * count)


class QwenTower:
    """The ``visual`` of ``outer``. Videos go through the same tower and are not recorded."""

    def __init__(self, outer: Qwen2_5_VLModel) -> None:
        self._tower = outer.visual

    @contextmanager
    def watched(self) -> Iterator[Look]:
        """Inside, what calls of the tower for images compute is remembered.

        Raises ModelError for a tower in which no block attends over whole pictures.
        """
        blocks = self._tower.blocks
        full = [block.attn for number, block in enumerate(blocks) if number in self._tower.fullatt_block_indexes]
        if not full:
            raise ModelError("no block of this vision tower attends over whole pictures, so none can be looked at")

        with (
            patching.before(self._tower, self._begin),
            patching.before(full[-1], self._attend),
            patching.after(blocks[-1], self._end),
        ):
            yield lambda: patching.knowing(self, QwenCapture(self._tower, full[-1]))

    def _capture(self) -> QwenCapture | None:
        capture: QwenCapture | None = patching.recall(self)
        return capture

    def _begin(self, args: patching.Args, kwargs: patching.Kwargs) -> None:
        if (capture := self._capture()) is not None:
            capture.begin(args, kwargs)

    def _attend(self, args: patching.Args, kwargs: patching.Kwargs) -> None:
        if (capture := self._capture()) is not None:
            capture.attend(args, kwargs)

    def _end(self, output: Tensor) -> None:
        if (capture := self._capture()) is not None:
            capture.end(output)
