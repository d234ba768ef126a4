"""Which recipe a forward runs under, where blocks are nested and threads share a model.

It is the recipe of the innermost ``with`` block that the thread or task has entered itself. A thread that has entered
none, such as one that was started to call ``generate``, runs under the only block there is. Recipes do not mix: an
inner block replaces the outer one. A forward ends under the recipe it began under, also if its block is left meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import attrs
from torch import nn

from headwise.errors import ModelError
from headwise_adapters.cache.ragged_cache import Layers
from headwise_adapters.eviction.trace import Trace
from headwise_adapters.patching import Patch, lock, memory, remembered


@attrs.define(eq=False, kw_only=True)
class Block:
    """A recipe attached to the model whose language model is ``text``.

    ``trace``: what its forwards leave.
    ``layers``: makes the layers of caches that evict, None where nothing is evicted. ``dropper``: whose wrappers drop
    visual tokens, None where none are dropped. ``parent``: the block it was entered in. ``patch``: what is on the
    model, held by the block while it is open and by each forward that began under it.
    """

    text: nn.Module
    trace: Trace
    layers: Layers | None = None
    dropper: object = None
    parent: Block | None = attrs.field(default=None, init=False)
    open: bool = attrs.field(default=True, init=False)
    patch: Patch = attrs.field(init=False)


_blocks: WeakKeyDictionary[nn.Module, tuple[Block, ...]] = WeakKeyDictionary()
_entered: ContextVar[tuple[Block, ...]] = ContextVar("headwise_entered", default=())
_TEXT, _BLOCK = object(), object()  # in a memory: the language model of a forward, and the block that rules


@contextmanager
def entered(block: Block, patches: ExitStack) -> Iterator[None]:
    """Inside, forwards run under the block. Its patches are taken off afterwards, or after the last of its forwards."""
    block.patch = Patch(patches)
    handle = block.patch.hold()
    block.parent = next((one for one in reversed(_entered.get()) if one.open and one.text is block.text), None)
    with lock:
        _blocks[block.text] = (*_open_blocks(block.text), block)
    _entered.set((*(one for one in _entered.get() if one.open), block))
    try:
        yield
    finally:
        _entered.set(tuple(one for one in _entered.get() if one is not block))
        with lock:
            block.open = False
            _blocks[block.text] = _open_blocks(block.text)
        handle.release()


@contextmanager
def forward_of(text: nn.Module, who: object) -> Iterator[Block | None]:
    """Inside, a forward of the language model ``text`` runs, with a memory of its own; yields the block it runs under.

    ``who`` is the wrapper that asks. Several wrappers of one forward share its memory, as do a vision-language model
    and its language model. When the same ``who`` asks again, that is another forward. Raises ModelError where it is not
    clear which block it runs under.
    """
    found = remembered()
    if found is not None and found.get(_TEXT) is text and who not in found:
        found[who] = None
        yield found[_BLOCK]
        return
    with lock:
        block = ruling(text)
        handle = None if block is None else block.patch.hold()
    try:
        with memory() as own:
            own[_TEXT], own[_BLOCK], own[who] = text, block, None
            yield block
    finally:
        if handle is not None:
            handle.release()


def _open_blocks(text: nn.Module) -> tuple[Block, ...]:
    """The blocks of a model that nobody has left, in the order in which they were entered."""
    with lock:
        return tuple(block for block in _blocks.get(text, ()) if block.open)


def ruling(text: nn.Module) -> Block | None:
    """The block under which a forward that begins now would run; raises ModelError where there are several."""
    own = [block for block in _entered.get() if block.open and block.text is text]
    if own:
        return own[-1]
    there = _open_blocks(text)
    outer = {id(block.parent) for block in there}
    innermost = [block for block in there if id(block) not in outer]
    if len(innermost) > 1:
        raise ModelError(
            f"{len(innermost)} recipes are attached to this model by other threads, and none by this one;"
            " enter a `with headwise.attach(...)` here, so that it is clear which rules"
        )
    return innermost[0] if innermost else None
