"""What kvpress holds in memory at half budget, by storage: the other side of `benchmarks/kv.py bytes`.

    python -m venv kvpress-env
    kvpress-env/bin/pip install torch==2.13.0 kvpress==0.5.5 'transformers==5.2.*'
    kvpress-env/bin/python benchmarks/kvpress_bytes.py > kvpress.json
    python benchmarks/kv.py bytes --kvpress kvpress.json

Runs in an environment of its own, because kvpress 0.5.5 needs transformers below 5.3. The model is the random Llama of
`benchmarks/kv.py`. Prints one JSON object: versions, the model, and for every cache the bytes of its storages after
the prompt and after one more token, tensor lengths, and the entries that attention leaves out although they are held.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import torch
from kvpress import AdaKVPress, SnapKVPress
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM


def main() -> None:
    options = _options()
    model = _llama(options)
    ids = torch.randint(0, 256, (1, options.tokens), generator=torch.Generator().manual_seed(0))
    evicted = 1 - options.ratio
    presses = {
        "DynamicCache": None,
        f"SnapKVPress({evicted:g})": SnapKVPress(evicted),
        f"AdaKVPress(SnapKVPress({evicted:g}))": AdaKVPress(SnapKVPress(evicted)),
    }
    config = model.config
    found = {
        "versions": {name: version(name) for name in ("kvpress", "transformers", "torch")},
        "model": {
            "kind": "random Llama, seed 0",
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.hidden_size // config.num_attention_heads,
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": config._attn_implementation,
        },
        "tokens": options.tokens,
        "ratio": options.ratio,
        "caches": {name: held(model, press, ids) for name, press in presses.items()},
    }
    print(json.dumps(found, indent=1))


@torch.inference_mode()
def held(model: Any, press: Any, ids: torch.Tensor) -> dict[str, Any]:
    """Bytes and entries of a cache after the prompt, and its bytes after one token more."""
    cache = DynamicCache()
    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None
    with press(model) if press is not None else nullcontext():
        model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    masked = [layer.self_attn.masked_key_indices for layer in model.model.layers]
    found = {
        "kv_bytes": kv_bytes(cache),
        "lengths": sorted({layer.keys.shape[2] for layer in cache.layers}),
        "masked_but_held": sum(len(indices[0]) for indices in masked if indices is not None),
    }
    position = torch.tensor([[ids.shape[1]]])
    model(input_ids=ids[:, :1], past_key_values=cache, position_ids=position)
    return found | {"kv_bytes_after_one_token": kv_bytes(cache)}


def kv_bytes(cache: DynamicCache) -> int:
    """Bytes of the distinct storages behind keys and values."""
    storages = [states.untyped_storage() for layer in cache.layers for states in (layer.keys, layer.values)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _llama(options: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=options.kv_heads, max_position_embeddings=16384,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().to(dtype=getattr(torch, options.dtype))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the entries kept")
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
