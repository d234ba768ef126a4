"""Remembers what a model computes before anything is dropped: its vision tower, and the layers in front of a stage.

No recipe changes any of it, so trials that ask the same questions under many recipes compute it once. For a batch that
was seen before, the tower returns the features of the first time, and each remembered decoder layer puts its keys and
values into the cache, gives a probe its call, and returns its hidden states, all equal to the bit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from headwise.adapter import Decoder
from headwise_adapters import patching
from headwise_adapters.attention.probe import Call, Probe, probes_of

if TYPE_CHECKING:
    from transformers.cache_utils import Cache, CacheLayerMixin

ROOM = 2**31
"""Bytes that are held on a CPU; beyond them everything is computed again."""

EYES = ("vision_tower", "multi_modal_projector")
"""Names of the parts of a model that process pictures and nothing else."""

GPU_SHARE = 1 / 3
"""Of the memory that is free on a GPU when the first batch comes."""


@attrs.frozen(eq=False)
class _Passed:
    """What a decoder layer made of a prompt: its output, its keys and values, and its probed call, if it was probed."""

    output: object
    keys: Tensor
    values: Tensor
    call: Call | None


class Prefix:
    """Remembers a model's vision tower and first layers by a key that the caller gives each batch.

    ``room``: bytes that may be held; None leaves it to the device. ``held``: those that are.
    """

    def __init__(self, model: nn.Module, decoder: Decoder, room: int | None = None) -> None:
        inner = getattr(model, "model", None)
        self._eyes = [part for name in EYES if (part := getattr(inner, name, None)) is not None]
        self._decoder = decoder
        self._features: dict[Hashable, object] = {}
        self._passed: dict[tuple[Hashable, int], _Passed] = {}
        self.held = 0
        self._room = _room(model) if room is None else room

    @contextmanager
    def remembered(self, key: Hashable, layers: int = 0, *, tower: bool = True) -> Iterator[None]:
        """Inside, the first forward over batch ``key`` uses what is remembered and remembers the rest.

        ``layers``: how many decoder layers run before anything is dropped. ``tower`` False: the vision tower runs every
        time, because a strategy records its activations. Use it only for forwards of the very same tensors, with a new
        cache that nothing is evicted from.
        """
        with ExitStack() as stack:
            for part in self._eyes if tower else ():
                stack.enter_context(patching.method(part, "forward", partial(self._look, (key, id(part)))))
            for number in range(layers):
                layer = self._decoder.layers[number]
                stack.enter_context(patching.method(layer, "forward", partial(self._pass, key, number, [])))
            yield

    def _look(self, key: Hashable, look: patching.Call) -> patching.Call:
        @wraps(look)  # transformers reads signatures
        def look_once(*args: object, **kwargs: object) -> object:
            if key in self._features:
                return self._features[key]
            found = look(*args, **kwargs)
            if self._fits(found):
                self._features[key] = found
            return found

        return look_once

    def _pass(self, key: Hashable, number: int, seen: list[bool], run: patching.Call) -> patching.Call:
        attention = self._decoder.attention_of(number)

        @wraps(run)
        def pass_once(*args: object, **kwargs: Any) -> object:
            cache = kwargs.get(self._decoder.cache)
            if seen or cache is None:
                return run(*args, **kwargs)
            seen.append(True)  # the prompt; what follows is decoding
            known = self._passed.get((key, number))
            if known is not None and _replayed(known, attention, cache, number):
                return known.output
            output = run(*args, **kwargs)
            self._keep((key, number), output, cache.layers[number], probes_of(attention))
            return output

        return pass_once

    def _keep(self, place: tuple[Hashable, int], output: object, held: CacheLayerMixin, probes: list[Probe]) -> None:
        """Remember a layer; of one that is known already, what its attention was called with."""
        if held.keys.shape[-2] != _tensors(output)[0].shape[-2]:  # a cache of fixed length, or of a sliding window
            return
        found = _Passed(output, held.keys, held.values, probes[0].call if probes else None)
        if self._fits([found.call] if place in self._passed else [output, held.keys, held.values, found.call]):
            self._passed[place] = found

    def _fits(self, found: object) -> bool:
        """Whether there is room for what was found; then it is taken."""
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in _tensors(found)}
        size = sum(storage.nbytes() for storage in storages.values())
        fits = self.held + size <= self._room
        self.held += size if fits else 0
        return fits


def _replayed(known: _Passed, attention: nn.Module, cache: Cache, number: int) -> bool:
    """Leave everything as if the layer had run; False where a hook or wrapper would miss that it did not run."""
    probes = probes_of(attention)
    if (probes and known.call is None) or any(patching.watched(module) for module in attention.modules()):
        return False
    for probe in probes:
        probe.call = known.call
    cache.update(known.keys, known.values, number)
    return True


def _room(model: nn.Module) -> int:
    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return ROOM


def _tensors(found: object) -> list[Tensor]:
    """All tensors of a model output, those in tuples included."""
    if isinstance(found, Tensor):
        return [found]
    parts = found.to_tuple() if hasattr(found, "to_tuple") else found
    if not isinstance(parts, tuple | list):
        return []
    return [tensor for part in parts for tensor in _tensors(part)]
