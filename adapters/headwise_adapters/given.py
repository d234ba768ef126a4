"""What a forward that drops visual tokens is given: which tokens are real, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from headwise.errors import ModelError

_BLOCK = 4096  # rows of the embedding table that are looked at together
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def real_tokens(given: dict[str, Any], batch: int, length: int) -> npt.NDArray[np.bool_]:
    """Bool (batch, length): the tokens of this forward that are no padding, as flags (b, n) say; without flags, all."""
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        real: npt.NDArray[np.bool_] = mask[:, -length:].bool().cpu().numpy()
        return real
    return np.ones((batch, length), dtype=bool)


def check_embeddings(text: nn.Module, states: Tensor, real: npt.NDArray[np.bool_]) -> None:
    """Raise ModelError unless the real ones of embeddings (b, n, d) are all words of the language model.

    Others may be of images that somebody merged beforehand. Those would be run as text, none of them dropped.
    """
    states = states.detach()[torch.from_numpy(real).to(states.device)]
    begins, wanted = _beginning(states), _hash(states)
    found = torch.zeros_like(wanted, dtype=torch.bool)
    embed, words = cast(Any, text).get_input_embeddings(), cast(Any, text).config.vocab_size
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
    """A number int64 (n,) for the bits of each of (n, d); other bits give another number, but for one case in 2**64."""
    factors = torch.randint(-(2**62), 2**62, states.shape[-1:], generator=torch.Generator().manual_seed(0)) * 2 + 1
    return (states.contiguous().view(_INTEGERS[states.element_size()]).long() * factors.to(states.device)).sum(dim=-1)
