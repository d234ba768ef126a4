"""What a model makes of its pictures, overheard: the calls of ``get_image_features`` and the tower's inner layers.

`generate` makes the features before the first forward and hands on nothing else, so what tells images apart, and what
the vision tower thought of them, has to be caught when the features are made.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import attrs
import torch

from headwise_adapters.anatomy import Anatomy
from headwise_adapters.images import Seen


@attrs.frozen(eq=False)
class Call:
    """One call of ``get_image_features``: its bound arguments, and the output that the forward will be handed."""

    arguments: dict[str, Any]
    output: Any


class Watcher:
    """Remembers the last call, and what the tower did in it where that is wanted (``seen``).

    Until the next call: without a cache, `generate` hands the same features to every forward.
    """

    def __init__(self, seen: Seen | None) -> None:
        self.seen = seen
        self.last: Call | None = None

    def call_for(self, features_given: Any) -> Call | None:
        """The call that made a forward's image features; None where they were made out of sight."""
        if features_given is not None and (self.last is None or not _same(self.last.output, features_given)):
            return None
        return self.last

    def forget(self) -> None:
        """Let go of pixels and features."""
        self.last = None
        if self.seen is not None:
            self.seen.forget()


def _same(made: Any, given: Any) -> bool:
    """Whether a forward was handed what was made, or a copy: accelerate moves arguments to where a forward begins."""
    if made is given:
        return True
    ours, theirs = list(made.pooler_output), list(given.pooler_output)
    return [part.shape for part in ours] == [part.shape for part in theirs] and all(
        torch.equal(one.to(other.device), other) for one, other in zip(ours, theirs, strict=True)
    )


@contextmanager
def watching(anatomy: Anatomy, *, tower: bool) -> Iterator[Watcher]:
    """Watch ``get_image_features``, and inside the ``tower`` where that is wanted; nothing is left behind."""
    outer: Any = anatomy.outer
    with ExitStack() as stack:
        watcher = Watcher(stack.enter_context(anatomy.tower.watched()) if tower else None)
        original = outer.get_image_features
        signature = inspect.signature(original)

        @wraps(original)  # transformers reads signatures
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            bound = signature.bind_partial(*args, **kwargs).arguments
            watcher.last = Call({**bound, **bound.pop("kwargs", {})}, output)
            return output

        outer.get_image_features = watched
        stack.callback(delattr, outer, "get_image_features")  # the method of the class shows again
        try:
            yield watcher
        finally:
            watcher.forget()
