"""Records features, saliency and keys of a CLIP-like vision tower, in the layer that the model reads, while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headwise.errors import ModelError
from headwise_adapters import patching
from headwise_adapters.attention.probe import Call, probing
from headwise_adapters.vision.images import Look, captured

if TYPE_CHECKING:
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer


class ClipCapture:
    """What one CLIP-like layer computed in the tower's last call (a ``VisionCapture``)."""

    def __init__(self, has_cls: bool, first: int) -> None:
        self.states: Tensor | None = None
        self.call: Call | None = None
        self._has_cls, self._first = has_cls, first

    def features(self) -> list[Tensor]:
        """(n, c) per picture."""
        return list(captured(self.states)[:, self._first :].unbind(0))

    def saliency(self) -> list[Tensor]:
        """float32 (n,) per picture: the CLS row, or the mean of all rows, averaged over heads."""
        states = captured(self.states)
        pictures = torch.arange(len(states), device=states.device)
        columns = torch.arange(self._first, states.shape[1], device=states.device).expand(len(states), -1)
        if self._has_cls:
            cls = torch.zeros_like(columns[:, :1])
            return list(captured(self.call).rows(pictures, cls, columns).mean(dim=(1, 2)).unbind(0))
        call = captured(self.call)  # one picture at a time: all rows are needed, and those of a batch may not fit
        return [
            call.rows(pictures[i : i + 1], columns[i : i + 1], columns[i : i + 1])[0].mean(dim=(0, 1))
            for i in range(len(states))
        ]

    def keys(self) -> list[Tensor]:
        """(n, head_dim) per picture, averaged over heads."""
        return list(captured(self.call).keys()[:, :, self._first :].mean(dim=1).unbind(0))


class ClipTower:
    """A tower whose encoder layers have a ``self_attn``: CLIP, SigLIP and their relatives.

    ``feature_layer`` as in a LLaVA config: an index into the hidden states, 0 being the embeddings; of several, the
    last is looked at. ``keeps_cls``: the CLS token becomes a visual token like the patches.
    """

    def __init__(self, tower: nn.Module, feature_layer: int | list[int], *, keeps_cls: bool = False) -> None:
        layers = next((part for name, part in tower.named_modules() if name.endswith("encoder.layers")), None)
        wanted = feature_layer if isinstance(feature_layer, int) else feature_layer[-1]
        self._layer: CLIPEncoderLayer | None = None
        if isinstance(layers, nn.ModuleList):
            number = (wanted if wanted >= 0 else len(layers) + 1 + wanted) - 1
            self._layer = layers[number] if 0 <= number < len(layers) else None
        self._has_cls = any(name.endswith("class_embedding") for name, _ in tower.named_parameters())
        self._first = int(self._has_cls and not keeps_cls)
        self._name = type(tower).__name__

    @contextmanager
    def watched(self) -> Iterator[Look]:
        """Inside, what the layer computes is remembered; its attention implementation stays as it is.

        Raises ModelError where the tower has no such layer.
        """
        if self._layer is None:
            raise ModelError(f"{self._name} has no encoder layer with attention that headwise could look at")
        with probing(self._layer.self_attn, causal=False) as probe:

            def ran(output: Tensor | tuple[Tensor, ...]) -> None:
                capture: ClipCapture | None = patching.recall(self)
                if capture is not None:
                    capture.states, capture.call = (output if isinstance(output, Tensor) else output[0]), probe.call

            with patching.after(self._layer, ran):
                yield lambda: patching.knowing(self, ClipCapture(self._has_cls, self._first))
