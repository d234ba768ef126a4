"""What single heads of a vision-language model are worth: the answer's loss without them, and how much image they see.

A head is left out by zeroing its output in front of the output projection. Layers in front of it compute what they
always do, so they are run once, and every ablation starts from the hidden states that enter the head's layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.attachment import adapter_for
from headwise.errors import DataError, ModelError
from headwise.heads import Floats
from headwise.layout import IMAGE, Layout
from headwise_adapters import patching
from headwise_adapters.attention.probe import Probe
from headwise_adapters.heads.statistics import reading
from headwise_adapters.parts import VisionParts

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.models.llama.modeling_llama import LlamaAttention


@attrs.frozen(eq=False, kw_only=True)
class Ablation:
    """Heads of k layers on n prompts, h heads each.

    ``loss`` (n,): nats of the whole answer, given prompt and picture. ``rise`` (n, k, h): what it gains where one head
    alone is left out. ``mass`` (n, k, h): share of the head's attention that the text behind the image, up to the
    answer, pays the image.
    """

    loss: Floats
    rise: Floats
    mass: Floats

    @classmethod
    def joined(cls, parts: Sequence[Ablation]) -> Ablation:
        """The prompts of several, in order."""
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "rise", "mass")}
        )


@torch.inference_mode()
def ablate(
    model: PreTrainedModel,
    tensors: Mapping[str, Tensor],
    answer: Tensor,
    layers: Sequence[int],
    advance: Callable[[], None] = lambda: None,
) -> Ablation:
    """Leave out every head of some ``layers`` in turn, on a batch of prompts with their answers.

    ``tensors``: what the model is called with, answers included. ``answer`` bool (b, n): tokens of the answers.
    ``advance`` hears of every head. Raises ModelError for a model without images, DataError for a prompt without one.
    """
    adapter = adapter_for(model)
    parts = adapter.decoder
    if not isinstance(parts, VisionParts):
        raise ModelError(f"{type(model).__name__} sees no images; calibrate a vision-language model")
    whole = _Whole.of(parts, tensors, answer, layers)
    loss = _losses(model, whole.hidden, tensors["input_ids"], answer)
    rise = np.zeros((len(loss), len(layers), adapter.geometry.heads))
    for place, layer in enumerate(layers):
        with _starting_at(parts, layer):
            for head in range(adapter.geometry.heads):
                with _without(parts.attention_of(layer), head):
                    hidden = whole.again(parts, layer)
                rise[:, place, head] = _losses(model, hidden, tensors["input_ids"], answer) - loss
                advance()
    return Ablation(loss=loss, rise=rise, mass=whole.mass)


@attrs.frozen(eq=False)
class _Whole:
    """A forward of the whole model: its last ``hidden`` states, what ``entering`` layers got, and how to go on."""

    hidden: Tensor
    entering: dict[int, Tensor]
    call: patching.Kwargs
    mass: Floats

    @classmethod
    def of(cls, parts: VisionParts, tensors: Mapping[str, Tensor], answer: Tensor, layers: Sequence[int]) -> _Whole:
        asking = _Asking.of(parts, tensors, answer)
        call: patching.Kwargs = {}
        entering: dict[int, Tensor] = {}
        mass: dict[int, Floats] = {}

        def read(layer: int, probe: Probe) -> None:
            if layer in layers:
                mass[layer] = asking.mass(probe)

        with ExitStack() as stack:
            stack.enter_context(patching.before(parts.text, lambda _, given: call.update(given)))
            for layer in layers:

                def enter(given: patching.Args, _: patching.Kwargs, layer: int = layer) -> None:
                    entering[layer] = given[0]

                stack.enter_context(patching.before(parts.layer(layer), enter))
            stack.enter_context(reading(parts, read))
            hidden = parts.outer(**tensors, use_cache=False).last_hidden_state
        return cls(hidden, entering, call, np.stack([mass[layer] for layer in layers], axis=1))

    def again(self, parts: VisionParts, layer: int) -> Tensor:
        """The last hidden states, computed again from what entered a layer."""
        hidden: Tensor = parts.text(**self.call | {"inputs_embeds": self.entering[layer]}).last_hidden_state
        return hidden


@attrs.frozen(eq=False)
class _Asking:
    """Per row, positions of the query tokens (behind the first image, before the answer) and of the visual tokens."""

    queries: list[Tensor]
    columns: list[Tensor]

    @classmethod
    def of(cls, parts: VisionParts, tensors: Mapping[str, Tensor], answer: Tensor) -> _Asking:
        """Positions in a batch of prompts; raises DataError for a prompt without a picture."""
        image = (tensors["input_ids"] == parts.image_token).cpu().numpy()
        valid = tensors["attention_mask"].bool() & ~answer
        layout, device = Layout.of(image, valid.cpu().numpy()), answer.device
        if not all(layout.image_counts):
            raise DataError("a question has no picture; calibrate on questions about pictures")
        rows = range(len(layout))
        return cls(
            [torch.from_numpy(layout.text(row)).to(device) for row in rows],
            [torch.from_numpy(layout.positions(row, IMAGE)).to(device) for row in rows],
        )

    def mass(self, probe: Probe) -> Floats:
        """Attention of one layer's heads to the image, averaged over the asking tokens: (b, h)."""
        found = []
        for row, (queries, columns) in enumerate(zip(self.queries, self.columns, strict=True)):
            rows = probe.rows(torch.tensor([row], device=columns.device), queries[None], columns[None])
            found.append(rows[0].sum(dim=-1).mean(dim=-1))
        return np.asarray(torch.stack(found).double().cpu().numpy())


def _losses(model: PreTrainedModel, hidden: Tensor, ids: Tensor, answer: Tensor) -> Floats:
    """Nats of each row's answer, float64 (b,), from the last hidden states (b, n, d)."""
    rows, places = answer.nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(hidden[rows, places - 1])
    nll = F.cross_entropy(logits.float(), ids[rows, places], reduction="none").double()
    losses = torch.zeros(len(ids), dtype=torch.float64, device=nll.device).index_add(0, rows, nll)
    return np.asarray(losses.cpu().numpy())


@contextmanager
def _without(attention: LlamaAttention, head: int) -> Iterator[None]:
    """Inside, one head's output is zero; raises ModelError for attention without an ``o_proj``."""
    projection = getattr(attention, "o_proj", None)
    if projection is None:
        raise ModelError(f"{type(attention).__name__} has no o_proj, in front of which a head could be left out")
    own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)

    def zero(call: patching.Call, args: patching.Args, kwargs: patching.Kwargs) -> object:
        states = args[0].clone()
        states[..., own] = 0
        return call(states, *args[1:], **kwargs)

    with patching.around(projection, zero):
        yield


@contextmanager
def _starting_at(parts: VisionParts, layer: int) -> Iterator[None]:
    """Inside, hidden states pass through the layers in front of ``layer`` as they are; none is renumbered."""
    with ExitStack() as stack:
        for number in range(layer):
            stack.enter_context(patching.around(parts.layer(number), lambda _, args, __: args[0]))
        yield
