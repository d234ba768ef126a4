"""What stages decide. Inside a call of ``generate``, a decision is made once, from the prompt, and holds for all steps.

Without a cache, `generate` puts in the whole text at every step; with an assistant model, candidate tokens stand behind
the prompt in the first forward already. Since only the prompt is looked at, and only once, the text that is generated
is the same as with a cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from functools import wraps

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from headwise.autocast import without_autocast
from headwise_adapters import patching

Integers = npt.NDArray[np.int64]


@attrs.frozen(eq=False)
class Merge:
    """Visual tokens that stay become weighted sums of those that came in, in some ``rows``.

    ``columns`` int64 (b, v): where those that came in stand. ``places`` int64 (b, keep): where the sums go. ``weights``
    (b, keep, v): of each one that came in, in each sum.
    """

    rows: Sequence[int]
    columns: Integers
    places: Integers
    weights: Tensor


@attrs.frozen(eq=False)
class Decision:
    """What a stage decided. ``survivors``: row -> positions, among the tokens left, of the visual tokens that stay.

    Rows that lose no token are left out.
    """

    survivors: dict[int, Integers]
    merges: Sequence[Merge] = ()

    def merged(self, hidden: Tensor) -> Tensor:
        """Hidden states (batch, n, d) with merged tokens written to their places."""
        changed = hidden.clone() if self.merges else hidden
        for merge in self.merges:
            rows = torch.tensor(merge.rows, device=hidden.device).unsqueeze(-1)
            columns, places = (torch.from_numpy(index).to(hidden.device) for index in (merge.columns, merge.places))
            weights = merge.weights.to(device=hidden.device, dtype=torch.float32)
            with without_autocast():
                states = weights @ hidden[rows, columns].float()
            changed[rows, places] = states.to(hidden.dtype)
        return changed


@attrs.frozen(eq=False)
class _Choices:
    """Layer -> what a recipe (``owner``) decided there about ``pictures`` in a prompt whose tokens are of ``kinds``."""

    owner: object
    kinds: npt.NDArray[np.uint8]
    pictures: Sequence[object]
    decided: dict[int, Decision] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Generation:
    """A call of ``generate`` of the model whose language model is ``text``: its ``prompt``, ids (b, n) or embeddings
    (b, n, d), and what was chosen from it."""

    text: nn.Module
    prompt: Tensor
    _choices: list[_Choices] = attrs.field(factory=list, init=False)

    def end(self, source: Tensor) -> int | None:
        """How many columns of a forward of ``source``, (b, n) or (b, n, d), are of the prompt, which may be repeated
        for beams; None where it does not begin with the prompt."""
        rows, length = self.prompt.shape[:2]
        begins = source[:, :length].to(self.prompt.device)
        if source.ndim != self.prompt.ndim or len(source) % rows:
            return None
        own = self.prompt.repeat_interleave(len(source) // rows, dim=0)
        return length if torch.equal(own, begins) else None

    def decided(self, owner: object, kinds: npt.NDArray[np.uint8], pictures: Sequence[object]) -> dict[int, Decision]:
        """Layer -> decision about these pictures in the prompt; to be filled where it is empty."""
        for one in self._choices:
            if one.owner is owner and np.array_equal(one.kinds, kinds) and alike(one.pictures, pictures):
                return one.decided
        self._choices.append(_Choices(owner, kinds, pictures))
        return self._choices[-1].decided


_generation: ContextVar[Generation | None] = ContextVar("headwise_generation", default=None)


def generation_of(text: nn.Module) -> Generation | None:
    """The call of ``generate`` that this thread or task is in, if it is of the model with language model ``text``."""
    found = _generation.get()
    return found if found is not None and found.text is text else None


def generating(text: nn.Module, original: patching.Call) -> patching.Call:
    """``generate`` of the model with language model ``text``; its forwards find it by :func:`generation_of`."""
    signature = inspect.signature(original)

    @wraps(original)  # transformers reads signatures
    def generate(*args: object, **kwargs: object) -> object:
        given = patching.arguments_of(signature, args, kwargs)
        prompts = (given.get(name) for name in ("inputs_embeds", "input_ids", "inputs"))
        prompt = next((one for one in prompts if isinstance(one, Tensor) and one.ndim > 1), None)
        token = _generation.set(None if prompt is None else Generation(text, prompt))
        try:
            return original(*args, **kwargs)
        finally:
            _generation.reset(token)

    return generate


def alike(one: object, other: object) -> bool:
    """Whether two values, lists of values or outputs of the vision tower are equal, also across devices."""
    one, other = (getattr(value, "pooler_output", value) for value in (one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and torch.equal(one.to(other.device), other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return one is other
