"""Checks, before anything is computed, of what a forward that drops visual tokens is given: masks and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headwise.errors import ModelError
from headwise_adapters.cache.masks import real_flags
from headwise_adapters.eviction.served import covering, steps_of_one_text
from headwise_adapters.patching import Kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Flags = npt.NDArray[np.bool_]

_BLOCK = 4096  # rows of the embedding table that are looked at together
_UNSEEN = -1e3  # of a mask to be added: what softmax makes of it is 0 in every data type
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def real_tokens(given: Kwargs, image: Flags) -> Flags:
    """Bool (b, n): the tokens of this forward that are no padding; ``image`` bool (b, n) are visual.

    Flags (b, k) say so. A mask with four axes is read only where there are visual tokens to drop. Raises ModelError for
    flags that are not one for each token, and for a mask that does not tell padding.
    """
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        cache = given.get("past_key_values")
        covering(mask, image.shape[1] + (0 if cache is None else int(cache.get_seq_length())))
        return np.asarray(real_flags(mask, image.shape[1]).cpu().numpy())
    if mask is None or not image.any():
        return np.ones_like(image)
    if not isinstance(mask, Tensor):
        raise ModelError(f"an attention mask as a {type(mask).__name__} does not tell padding; give flags (b, n)")
    return _shown(mask, image)


def _shown(mask: Tensor, image: Flags) -> Flags:
    """The tokens bool (b, n) that are no padding, from a mask (b|1, h|1, n, k): those that each row's last token sees.

    Raises ModelError unless padding comes first in each row, no token sees it, and every other token sees all that are
    in front of it. Padded queries may see everything, because softmax needs a key.
    """
    (batch, length), seen = image.shape, mask if mask.dtype == torch.bool else mask > _UNSEEN
    if mask.ndim != 4 or mask.shape[2] != length:
        raise ModelError(f"an attention mask {tuple(mask.shape)} is not one of {length} tokens; give flags (b, n)")
    own = seen.any(dim=1)[..., -length:].expand(batch, -1, -1).cpu().numpy()
    real = own[:, -1]
    padding = ~real
    shows = own & ~np.eye(length, dtype=bool) & ~(own.all(axis=-1) & padding)[:, :, None] & padding[:, None, :]
    hides = ~own & np.tri(length, dtype=bool) & real[:, :, None] & real[:, None, :]
    if shows.any() or hides.any() or (real[:, :-1] & padding[:, 1:]).any() or (image & padding).any():
        raise ModelError(
            "an attention mask with 4 axes is followed where visual tokens are dropped if each token sees the whole row"
            " in front of it, but for padding on the left; give flags (b, n), and each text a row of its own"
        )
    return real


def check_layout(given: Kwargs, real: Flags) -> None:
    """Raise ModelError for several texts in a row, where no image and no query token could be given to its text."""
    steps_of_one_text(given, torch.from_numpy(real), "where visual tokens are dropped")


def check_embeddings(text: PreTrainedModel, states: Tensor, real: Flags) -> None:
    """Raise ModelError unless all ``real`` ones of embeddings (b, n, d) are rows of the embedding table.

    Others may be image features that somebody merged beforehand, which would be run as text and never be dropped.
    """
    states = states.detach()[torch.from_numpy(real).to(states.device)]
    begins, wanted = _beginning(states), _hash(states)
    found = torch.zeros_like(wanted, dtype=torch.bool)
    embed, words = text.get_input_embeddings(), text.config.vocab_size
    with torch.no_grad():
        for first in range(0, words, _BLOCK):
            if bool(found.all()):
                return
            ids = torch.arange(first, min(first + _BLOCK, words), device=states.device)
            rows = embed(ids).to(states)
            alike = torch.isin(_beginning(rows), begins)  # few are, and adding up takes long
            found |= torch.isin(wanted, _hash(rows[alike]))
    if not bool(found.all()):
        raise ModelError(
            "inputs_embeds hold vectors that are no rows of the embedding table, as where images are merged already,"
            " and visual tokens could not be found among them to be dropped; give input_ids, or embeddings of"
            " placeholders, together with pixel_values"
        )


def _beginning(states: Tensor) -> Tensor:
    """The first 8 bytes of each of (n, d), as int64 (n,)."""
    return states[:, : 8 // states.element_size()].contiguous().view(torch.int64)[:, 0]


def _hash(states: Tensor) -> Tensor:
    """A hash int64 (n,) of the bits of each row of (n, d); two different rows collide once in 2**64."""
    drawn = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, states.shape[-1:], generator=drawn, device="cpu") * 2 + 1
    return (states.contiguous().view(_INTEGERS[states.element_size()]).long() * factors.to(states.device)).sum(dim=-1)
