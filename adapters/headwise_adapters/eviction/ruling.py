"""Which recipe a forward runs under, where blocks are nested and threads share a model.

It is that of the innermost ``with`` block that the thread or task has entered itself; where it has entered none, as
a thread that was started to call ``generate``, that of the only block there is. A recipe rules alone: an inner one
replaces the outer wholly. A forward ends under the recipe it began under, whoever leaves its block meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import attrs
from torch import nn

from headwise.errors import ModelError
from headwise_adapters.cache.ragged_cache import Layers
from headwise_adapters.patching import Patch, memory, remembered


@attrs.define(eq=False, kw_only=True)
class Block:
    """A recipe attached to the model whose language model is ``text``.

    ``layers``: makes the layers of caches that evict, None where nothing is evicted. ``dropper``: whose wrappers drop
    visual tokens, None where none are dropped. ``parent``: the block it was entered in. ``patch``: what is on the
    model, held by the block while it is open and by each forward that began under it.
    """

    text: nn.Module
    layers: Layers | None = None
    dropper: object = None
    parent: Block | None = attrs.field(default=None, init=False)
    open: bool = attrs.field(default=True, init=False)
    patch: Patch = attrs.field(init=False)


_lock = threading.RLock()
_blocks: WeakKeyDictionary[nn.Module, tuple[Block, ...]] = WeakKeyDictionary()
_entered: ContextVar[tuple[Block, ...]] = ContextVar("headwise_entered", default=())
_TEXT, _BLOCK = object(), object()  # in a memory: the language model of a forward, and the block that rules


@contextmanager
def attached(block: Block, patches: ExitStack) -> Iterator[None]:
    """Inside, the block rules; its patches are taken off afterwards, or after the last of its forwards."""
    block.patch = Patch(patches)
    handle = block.patch.hold()
    block.parent = next((one for one in reversed(_entered.get()) if one.open and one.text is block.text), None)
    with _lock:
        _blocks[block.text] = (*_blocks.get(block.text, ()), block)
    _entered.set((*(one for one in _entered.get() if one.open), block))
    try:
        yield
    finally:
        _entered.set(tuple(one for one in _entered.get() if one is not block))
        with _lock:
            block.open = False
            left = tuple(one for one in _blocks[block.text] if one is not block)
            if left:
                _blocks[block.text] = left
            else:
                del _blocks[block.text]
        handle.release()


@contextmanager
def forward_of(text: nn.Module, who: object) -> Iterator[Block | None]:
    """The block that rules a forward, which has a memory of its own until it ends.

    A language model that runs within the forward of its vision-language model shares its memory, and so do several
    wrappers of one call; ``who`` asks, and asks for another forward when it asks again.
    """
    found = remembered()
    if found is not None and found.get(_TEXT) is text and who not in found:
        found[who] = None
        yield found[_BLOCK]
        return
    with _lock:
        block = ruling(text)
        handle = None if block is None else block.patch.hold()
    try:
        with memory() as own:
            own[_TEXT], own[_BLOCK], own[who] = text, block, None
            yield block
    finally:
        if handle is not None:
            handle.release()


def ruling(text: nn.Module) -> Block | None:
    """The block under which a forward that begins now would run; ModelError where that cannot be told."""
    own = [block for block in _entered.get() if block.open and block.text is text]
    if own:
        return own[-1]
    with _lock:
        there = _blocks.get(text, ())
    outer = {id(block.parent) for block in there}
    innermost = [block for block in there if id(block) not in outer]
    if len(innermost) > 1:
        raise ModelError(
            f"{len(innermost)} recipes are attached to this model by other threads, and none by this one;"
            " enter a `with headwise.attach(...)` here, so that it is clear which rules"
        )
    return innermost[0] if innermost else None
