"""The one way to change a module and to take it back: calls and attributes are seen through wrappers.

A patched module becomes an instance of a subclass of its class with the same name, as FSDP does it. Nothing is written
into the module: its attributes, its hooks and its config stay what they are, also when somebody changes them meanwhile,
and a copy or a pickle of it is of the class that it had. Wrappers stand in tuples that are replaced and never changed,
so a thread that is inside a call finishes it with the wrappers it began with. When the last wrapper is taken off, the
module gets its class back.

What wrappers remember belongs to one forward in one context, so to one thread and one asyncio task; they keep it in a
``memory()``. Patched modules run eagerly, because compiled graphs do not call wrappers.

Wrappers come as context managers. What several users share for longer, such as a decoder's attention that asks caches,
is a ``Patch``: it is put on for the first of its holders and taken off after the last.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

import attrs
import torch
from torch import nn
from torch._dynamo import OptimizedModule
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from headwise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

Value = TypeVar("Value")

Call = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Memory = dict[object, Any]
Around = Callable[[Call, Args, Kwargs], object]
"""A wrapper of calls: it is given the call that it wraps, positional and keyword arguments, and returns the output."""

METHODS = ("forward", "get_image_features", "generate", "prepare_inputs_for_generation")
"""Methods that can be wrapped, be they the class's or the instance's."""

INTERFACE = "headwise"
"""Under this name transformers finds the attention function that goes through wrappers."""


CALL, ATTENTION = "__call__", "attention"
"""What else can be wrapped: calls of a module, and of the attention function of an attention module."""


@attrs.define(eq=False)
class _Record:
    """What is wrapped around one module of class ``stock``: by kind, the last is outermost.

    Kinds are ``CALL``, ``ATTENTION`` and the names in ``METHODS``.
    """

    stock: type[nn.Module]
    wrappers: dict[str, tuple[Call, ...]] = attrs.field(factory=dict)

    def of(self, kind: str) -> tuple[Call, ...]:
        return self.wrappers.get(kind, ())

    def change(self, kind: str, made: Callable[[tuple[Call, ...]], tuple[Call, ...]]) -> None:
        """Replace the wrappers of a kind; begin again where others were replaced meanwhile (see ``lock``)."""
        before = after = self.wrappers
        while after is before or self.wrappers is not before:
            before = self.wrappers
            after = {**before, kind: made(before.get(kind, ()))}
        self.wrappers = after


lock = threading.RLock()
"""Held while patches and blocks are put on and taken off.

One lock serves both, and the thread that holds it may take it again: a context manager that was lost is closed by the
garbage collector, in any thread and in the midst of anything, also between two lines that hold this lock.
"""
_memory: ContextVar[Memory | None] = ContextVar("headwise_memory", default=None)
_attends: ContextVar[bool] = ContextVar("headwise_attends", default=False)  # inside an attention function
_running: ContextVar[tuple[_Record, ...]] = ContextVar("headwise_running", default=())  # whose wrappers have begun


@contextmanager
def memory() -> Iterator[Memory]:
    """Inside, wrappers can remember values, each under its owner; only this context sees them, and they end with it."""
    own: Memory = {}
    token = _memory.set(own)
    try:
        yield own
    finally:
        _memory.reset(token)


@contextmanager
def knowing(owner: object, value: Value) -> Iterator[Value]:
    """Inside, ``owner``'s memory is ``value``, beside all that is remembered already."""
    token = _memory.set({**(_memory.get() or {}), owner: value})
    try:
        yield value
    finally:
        _memory.reset(token)


def remembered() -> Memory | None:
    """The innermost memory of this context, None outside of any."""
    return _memory.get()


def recall(owner: object) -> Any:
    """What is remembered for ``owner`` in this context, None where nothing is."""
    return (_memory.get() or {}).get(owner)


def remember(owner: object, value: object) -> None:
    """Remember a value for ``owner`` where there is a memory."""
    found = _memory.get()
    if found is not None:
        found[owner] = value


@contextmanager
def _patch(module: nn.Module, kind: str, wrapper: Call, *, innermost: bool = False) -> Iterator[None]:
    """Inside, a wrapper of one kind is around the outside of all others of a module, or inside of them."""
    with lock:
        while True:
            record = _patched(module)
            record.change(kind, lambda found: (wrapper, *found) if innermost else (*found, wrapper))
            if getattr(type(module), _RECORD, None) is record:
                break  # otherwise the class was given back meanwhile, see `lock`
    try:
        yield
    finally:
        with lock:
            record.change(kind, lambda found: _without(found, wrapper))
            _restored(module)


def around(module: nn.Module, wrapper: Around, *, innermost: bool = False) -> AbstractContextManager[None]:
    """Inside, calls of ``module`` go through ``wrapper``, those of its ``forward`` too, as PEFT and others make them.

    A layer's ``forward`` is the exception: gradient checkpointing calls it again, on what its wrappers have made.
    """
    return _patch(module, CALL, wrapper, innermost=innermost)


def before(
    module: nn.Module, see: Callable[[Args, Kwargs], object], *, innermost: bool = False
) -> AbstractContextManager[None]:
    """Inside, ``see(args, kwargs)`` is called before every call of ``module``."""

    def wrapper(call: Call, args: Args, kwargs: Kwargs) -> object:
        see(args, kwargs)
        return call(*args, **kwargs)

    return around(module, wrapper, innermost=innermost)


def after(module: nn.Module, see: Callable[[Any], object], *, innermost: bool = False) -> AbstractContextManager[None]:
    """Inside, ``see(output)`` is called after every call of ``module`` that returns."""

    def wrapper(call: Call, args: Args, kwargs: Kwargs) -> object:
        output = call(*args, **kwargs)
        see(output)
        return output

    return around(module, wrapper, innermost=innermost)


def attending(module: nn.Module, wrapper: Around, *, innermost: bool = False) -> AbstractContextManager[None]:
    """Inside, the attention function of an attention module is called through ``wrapper`` where there is a memory.

    ``wrapper`` gets the module, query (b, heads, q, d), key and value (b, kv_heads, n, d) and mask as positional
    arguments, and the function that the module's config names at the time of the call.
    """
    return _patch(module, ATTENTION, wrapper, innermost=innermost)


def method(module: nn.Module, name: str, wrapper: Callable[[Call], Call]) -> AbstractContextManager[None]:
    """Inside, method ``name`` of ``module``, one of ``METHODS``, is what ``wrapper`` makes of it."""
    return _patch(module, name, wrapper)


class _Overridden:
    """A method of one object that goes through wrappers; ``shown`` is what its instance had under that name."""

    def __init__(self, stock: Call, shown: tuple[object, ...]) -> None:
        self.stock, self.shown = stock, shown
        self.wrappers: tuple[Around, ...] = ()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return _chained(self.stock, self.wrappers)(*args, **kwargs)


@contextmanager
def overridden(owner: object, name: str, wrapper: Around) -> Iterator[None]:
    """Inside, method ``name`` of an object that is no module, such as a pipeline, is called through ``wrapper``."""
    with lock:
        found = vars(owner).get(name)
        if not isinstance(found, _Overridden):
            found = _Overridden(getattr(owner, name), (found,) if name in vars(owner) else ())
            vars(owner)[name] = found
        found.wrappers = (*found.wrappers, wrapper)
    try:
        yield
    finally:
        with lock:
            found.wrappers = _without(found.wrappers, wrapper)
            if not found.wrappers:
                del vars(owner)[name]
            for shown in () if found.wrappers else found.shown:
                vars(owner)[name] = shown


class Patch:
    """Wrappers that are on a model for as long as anybody holds a :class:`PatchHandle` of them.

    A handle counts until it is released, or until nothing refers to it any more. In the second case nothing is taken
    off at once, because finalisers run in any thread, in the midst of anything: ``tidy`` does that, which is called
    at the end of a forward, at the end of a block, and before the next patch of the same kind. Until then the wrappers
    find nothing to do, and calls run as in the stock model.
    """

    def __init__(self, installed: ExitStack) -> None:
        self._installed = installed.pop_all()
        self._handles: WeakSet[PatchHandle] = WeakSet()
        self._is_on = True

    @classmethod
    def shared(cls, module: nn.Module, make: Callable[[], Patch]) -> PatchHandle:
        """Hold the one patch of this class that ``module`` has; ``make`` puts it on where there is none."""
        with lock:
            kinds = _shared.setdefault(module, {})
            patch = kinds.get(cls, lambda: None)()
            if patch is None or not patch._is_on:
                patch = make()
                kinds[cls] = ref(patch)
            return patch.hold()

    def hold(self) -> PatchHandle:
        """Keep the wrappers on."""
        with lock:
            handle = PatchHandle(self)
            self._handles.add(handle)
            return handle

    def tidy(self) -> None:
        """Take the wrappers off where nobody holds them; to call it again does nothing."""
        with lock:
            if not self._handles:
                self._is_on = False
                self._installed.close()


@attrs.frozen(eq=False)
class PatchHandle:
    """One holder of a :class:`Patch`. Copies of what keeps a handle share it."""

    patch: Patch

    def release(self) -> None:
        """Stop holding; the last holder takes the wrappers off. To release a handle again does nothing."""
        with lock:
            self.patch._handles.discard(self)
            self.patch.tidy()

    def __deepcopy__(self, _: object) -> PatchHandle:
        return self


_shared: WeakKeyDictionary[nn.Module, dict[type[Patch], ref[Patch]]] = WeakKeyDictionary()


@contextmanager
def eagerly(root: nn.Module, modules: list[nn.Module]) -> Iterator[None]:
    """Inside, no compiled graph runs in place of ``modules`` of ``root``, or of a module that contains one of them."""
    wanted, found = {id(module) for module in modules}, {""}
    for name, module in root.named_modules(remove_duplicate=False):
        if id(module) in wanted:
            parts = name.split(".")
            found.update(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    with ExitStack() as stack:
        for name in sorted(found):
            stack.enter_context(around(root.get_submodule(name), _as_it_is))
        yield


def arguments_of(signature: inspect.Signature, args: Args, kwargs: Kwargs) -> Kwargs:
    """The arguments of a call by name, those that a ``**kwargs`` parameter collects among them."""
    bound = signature.bind_partial(*args, **kwargs).arguments
    collected: Kwargs = bound.pop("kwargs", {})
    return {**bound, **collected}


def attentions_of(module: nn.Module) -> tuple[Around, ...]:
    """The wrappers of a module's attention function."""
    record: _Record | None = getattr(type(module), _RECORD, None)
    return () if record is None else record.of(ATTENTION)


def watched(module: nn.Module) -> bool:
    """Whether hooks or wrappers see the calls of a module."""
    record: _Record | None = getattr(type(module), _RECORD, None)
    wrapped = record is not None and any(wrapper is not _as_it_is for wrapper in record.of(CALL))
    return bool(wrapped or module._forward_hooks or module._forward_pre_hooks)


def uncompiled(module: nn.Module) -> Any:
    """The module that ``torch.compile`` was given, or the module itself."""
    while isinstance(module, OptimizedModule):
        module = vars(module)["_modules"]["_orig_mod"]
    return module


def _as_it_is(call: Call, args: Args, kwargs: Kwargs) -> object:
    return call(*args, **kwargs)


def _patched(module: nn.Module) -> _Record:
    """The record of a module, whose class is changed where it is not; under the lock."""
    if not hasattr(type(module), _RECORD):
        _become(module, _patched_class(type(module)))
    record: _Record = getattr(type(module), _RECORD)
    return record


def _restored(module: nn.Module) -> None:
    """Give the class back once nothing is left; a class that somebody derived from ours meanwhile is left alone."""
    record = vars(type(module)).get(_RECORD)
    if record is not None and not any(record.wrappers.values()):
        _become(module, record.stock)


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    object.__setattr__(module, "__class__", kind)  # an OptimizedModule hands `setattr` on to what it compiles


def _without(wrappers: tuple[Call, ...], wrapper: Call) -> tuple[Call, ...]:
    """``wrappers`` but for the last that is ``wrapper``."""
    last = max(place for place, found in enumerate(wrappers) if found is wrapper)
    return wrappers[:last] + wrappers[last + 1 :]


_RECORD = "_headwise_record"  # of a patched class: what is around its one instance


def _patched_class(stock: type[nn.Module]) -> type[nn.Module]:
    """A subclass of a module's class for that module alone, so that nothing but the module keeps wrappers alive."""
    record = _Record(stock)

    def called(self: nn.Module, *args: object, **kwargs: object) -> object:
        return _through(record, partial(stock.__call__, self), args, kwargs)

    def reduced(self: nn.Module, protocol: int) -> tuple[object, ...]:
        """Copies and pickles are of the stock class, and nobody wraps them."""
        reduce: Call = stock.__reduce_ex__
        make, args, *rest = reduce(self, min(protocol, 1))  # protocols from 2 on insist on the class of the instance
        return (_unpatched(make), tuple(_unpatched(given) for given in args), *rest)

    def replicated(self: nn.Module) -> NoReturn:
        """Raises ModelError: replicas of DataParallel are made of modules that nobody patched."""
        raise ModelError("headwise cannot follow the replicas of DataParallel; run one process per device")

    disable: Call = torch.compiler.disable  # untyped
    namespace = {
        "__module__": stock.__module__,
        "__qualname__": stock.__qualname__,
        "__doc__": stock.__doc__,
        "__call__": disable(called),
        "__reduce_ex__": reduced,
        "_replicate_for_data_parallel": replicated,
        _RECORD: record,
    }
    made = type(stock.__name__, (stock,), namespace)
    # Afterwards, because transformers wraps `forward` of every new class of decoder layers.
    for name in (*METHODS, "config", "_compiled_call_impl"):
        setattr(made, name, _Attribute(name, record))
    return made


def _unpatched(given: object) -> object:
    return vars(given)[_RECORD].stock if isinstance(given, type) and _RECORD in vars(given) else given


def _wrapped(wrapper: Around, call: Call, *args: object, **kwargs: object) -> object:
    return wrapper(call, args, kwargs)


def _chained(call: Call, wrappers: tuple[Around, ...]) -> Call:
    """A call that goes through all wrappers; the last of them is outermost."""
    for wrapper in wrappers:
        call = partial(_wrapped, wrapper, call)
    return call


def _through(record: _Record, call: Call, args: Args, kwargs: Kwargs) -> object:
    """A call of a module through its wrappers; raises ModelError where it is traced or exported."""
    if torch._C._get_tracing_state() is not None or torch.compiler.is_exporting():
        raise ModelError("a model cannot be traced or exported while headwise is attached to it; do it before")
    token = _running.set((*_running.get(), record))
    try:
        return _chained(call, record.of(CALL))(*args, **kwargs)
    finally:
        _running.reset(token)


def _directly(record: _Record, forward: Call) -> Call:
    """A ``forward`` that goes through the wrappers unless the module's call has done so already."""

    @wraps(forward)  # transformers reads signatures
    def run(*args: object, **kwargs: object) -> object:
        return forward(*args, **kwargs) if record in _running.get() else _through(record, forward, args, kwargs)

    return run


class _Attribute:
    """An attribute of patched instances: theirs, or what is to be seen in its place. Writing it is as ever."""

    def __init__(self, name: str, record: _Record) -> None:
        self._name, self._record = name, record

    def __get__(self, module: nn.Module | None, owner: type) -> object:
        if module is None:
            return getattr(self._record.stock, self._name)
        if self._name == "_compiled_call_impl":
            return None
        value = self._own(module)
        if self._name == "config":
            asked = self._record.of(ATTENTION) and _memory.get() is not None and not _attends.get()
            return _Config(value) if asked else value
        for wrapper in self._record.of(self._name):
            value = wrapper(value)
        if self._name == "forward" and self._begins(module):
            return _directly(self._record, value)
        return value

    def _begins(self, module: nn.Module) -> bool:
        """Whether a ``forward`` asked for now may be a call of the module that went through no wrapper."""
        wrapped = self._record.of(CALL) and self._record not in _running.get()
        return bool(wrapped) and not isinstance(module, GradientCheckpointingLayer)

    def __set__(self, module: nn.Module, value: object) -> None:
        vars(module)[self._name] = value

    def __delete__(self, module: nn.Module) -> None:
        """Delete the module's own attribute; raises AttributeError where it has none."""
        if self._name not in vars(module):
            raise AttributeError(self._name)
        del vars(module)[self._name]

    def _own(self, module: nn.Module) -> Any:
        """The module's own value, and what was compiled in place of what it was compiled to."""
        if self._name == "forward" and isinstance(module, OptimizedModule):
            return uncompiled(module)
        if self._name in vars(module):
            value = vars(module)[self._name]
            return getattr(value, "_torchdynamo_orig_callable", value) if self._name == "forward" else value
        found = getattr(self._record.stock, self._name)  # AttributeError: nn.Module looks among its children then
        return found.__get__(module, type(module)) if hasattr(found, "__get__") else found


class _Config:
    """A config that names our attention function, and is the module's own in everything else."""

    _attn_implementation = INTERFACE

    def __init__(self, own: PreTrainedConfig) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def _attend(module: LlamaAttention, *args: object, **kwargs: object) -> object:
    """The attention function of a module's own config, through the module's wrappers."""
    record: _Record = getattr(type(module), _RECORD)
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    token = _attends.set(True)
    try:
        implementation = module.config._attn_implementation
        call: Call = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
        return _chained(call, record.of(ATTENTION))(module, *args, **kwargs)
    finally:
        _attends.reset(token)


ALL_ATTENTION_FUNCTIONS.register(INTERFACE, _attend)
