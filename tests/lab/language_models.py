"""Tiny random language models on disk, each with a tokenizer of single bytes, made by the tests that load them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

BOS, EOS = "<s>", "</s>"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCAB = len(BYTES) + 2
WORDS = "In the beginning was the word, and the word was 7 times 12345 letters long. It went on; nobody knew why!\n"


def byte_tokenizer(begins: bool) -> PreTrainedTokenizerFast:
    """A token for every byte; ``begins``: texts are encoded with <s> before them."""
    vocabulary = {token: number for number, token in enumerate([BOS, EOS, *BYTES])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS, EOS])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)


def tiny_llama(vocabulary: int = VOCAB) -> LlamaForCausalLM:
    """Two layers, four heads over two KV heads."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def tiny_neox() -> GPTNeoXForCausalLM:
    """Two layers, four heads, a quarter of each rotary."""
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=4096,
            rotary_pct=0.25,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


FAMILIES = {"llama": tiny_llama, "neox": tiny_neox}


def write_model(folder: Path, family: str = "llama", *, begins: bool = False) -> Path:
    """Save a seeded model whose attention is far from flat, and its tokenizer."""
    torch.manual_seed(0)
    model = FAMILIES[family]()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    byte_tokenizer(begins).save_pretrained(folder)
    return folder


def write_text(folder: Path, copies: int = 20) -> Path:
    """A text of about a hundred bytes a copy."""
    path = folder / "words.txt"
    path.write_text(WORDS * copies, encoding="utf-8")
    return path
