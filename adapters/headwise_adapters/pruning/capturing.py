"""Records the calls of ``get_image_features`` and, where a strategy wants it, what the vision tower computes in them.

`generate` makes the image features before the first forward and hands on nothing else. So the pixels, which tell images
apart, and the tower's activations are recorded when the features are made, for the thread or task that makes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakSet

import attrs

from headwise.errors import ModelError
from headwise_adapters import patching
from headwise_adapters.parts import VisionParts
from headwise_adapters.pruning.choices import alike
from headwise_adapters.vision.images import Look, VisionCapture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@attrs.define(eq=False)
class Call:
    """One call of ``get_image_features``: its bound arguments, the output that the forward will be handed, and what
    the tower did in it where that is wanted (``vision``)."""

    arguments: patching.Kwargs
    output: object
    vision: VisionCapture | None


_last: ContextVar[Mapping[ActivationCapture, Call]] = ContextVar("headwise_last_call", default=MappingProxyType({}))


class ActivationCapture:
    """Remembers the last call of every thread or task until its next one.

    Without a cache, `generate` hands the same features to every forward, so a call may be asked for many times.
    """

    def __init__(self, look: Look | None, config: PreTrainedConfig) -> None:
        self._look, self._config = look, config
        self._calls: WeakSet[Call] = WeakSet()
        self._open = True

    def captured(self, original: patching.Call) -> patching.Call:
        """``get_image_features``, of which the last call is remembered."""
        signature = inspect.signature(original)

        @wraps(original)  # transformers reads signatures
        def capture(*args: object, **kwargs: object) -> object:
            given = patching.arguments_of(signature, args, kwargs)
            if self._look is not None:
                _as_configured(given, self._config)
            with nullcontext() if self._look is None else self._look() as vision:
                output = original(*args, **kwargs)
            call = Call(given, output, vision)
            self._calls.add(call)
            _last.set({one: found for one, found in _last.get().items() if one._open} | {self: call})
            return output

        return capture

    def call_for(self, features_given: object) -> Call | None:
        """The call that made a forward's image features; None where they were made by a call that was not recorded."""
        last = _last.get().get(self)
        # A forward may be handed a copy: accelerate moves arguments to where it begins.
        if features_given is not None and (last is None or not alike(last.output, features_given)):
            return None
        return last

    def forget(self) -> None:
        """Let go of pixels and features, in every thread."""
        self._open = False
        for call in list(self._calls):
            call.arguments, call.output, call.vision = {}, None, None


def _as_configured(given: Mapping[str, object], config: PreTrainedConfig) -> None:
    """Raise ModelError for a call that reads another layer of the vision tower than the config names.

    The strategy looks at the layer that the config names.
    """
    for name in ("vision_feature_layer", "vision_feature_select_strategy"):
        wanted, usual = given.get(name), getattr(config, name, None)
        if wanted is not None and wanted != usual:
            raise ModelError(
                f"this call gives {name}={wanted}, and the strategy looks at the vision tower where the config says"
                f" ({usual}); set it in the config before attaching"
            )


@contextmanager
def capturing(parts: VisionParts, *, tower: bool) -> Iterator[ActivationCapture]:
    """Inside, calls of ``get_image_features`` are recorded, and the ``tower``'s activations where that is wanted."""
    with ExitStack() as stack:
        looks = stack.enter_context(parts.tower.watched()) if tower else None
        capture = ActivationCapture(looks, parts.outer.config)
        stack.callback(capture.forget)
        stack.enter_context(patching.method(parts.outer, "get_image_features", capture.captured))
        yield capture
