"""How answers are generated: greedily, unless a caller changes that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, most: int, **changes: object
) -> GenerationConfig:
    """Settings for at most ``most`` greedy tokens. The model says which token ends a text, else the tokenizer.

    ``changes``: settings of transformers' GenerationConfig that are added or differ.
    """
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    settings = {
        "max_new_tokens": most,
        "do_sample": False,
        "num_beams": 1,
        "eos_token_id": tokenizer.eos_token_id if own is None else own,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return GenerationConfig(**settings | changes)
