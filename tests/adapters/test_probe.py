"""Probe rows equal eager attention maps; a probe leaves no trace."""

from __future__ import annotations

import pytest
import torch

from headwise_adapters.attention.probe import probing
from headwise_adapters.patching import memory


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("padding", [None, "left", "right"])
@torch.no_grad()
def test_rows_equal_eager_maps(tools, attention, kv_heads, padding):
    model = tools["tiny_llava"](attention, kv_heads=kv_heads)
    eager = tools["tiny_llava"]("eager", kv_heads=kv_heads)
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](3, "image", 9 if padding else 5, seed=2)]
    batch = tools["padded"](rows, padding or "left")
    if padding is None:
        batch.pop("attention_mask")
    images = tools["pixels"](2)
    maps = eager(**batch, pixel_values=images, output_attentions=True).attentions[2]
    asked = [[28, -1, 20], [27, 26, -1]] if padding == "left" else [[22, -1, 20], [21, 23, -1]]
    queries = torch.tensor(asked)
    columns = torch.tensor([[9, 8, 12], [5, 6, 10]])
    with memory(), probing(model.model.language_model.layers[2].self_attn) as probe:
        model(**batch, pixel_values=images)
        found = probe.rows(torch.arange(2), queries, columns)
        alone = probe.rows(torch.tensor([1]), queries[1:], columns[1:])
    assert found.shape == (2, 4, 3, 3)
    for b in range(2):
        for q in range(3):
            expected = maps[b, :, queries[b, q]][:, columns[b]] if queries[b, q] >= 0 else torch.zeros(4, 3)
            torch.testing.assert_close(found[b, :, q], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone[0], found[1], atol=0, rtol=0)


@torch.no_grad()
def test_probe_costs_rows_not_maps(tools):
    """The largest tensor a probe makes has heads x rows x keys entries, not length x length."""
    model = tools["tiny_llava"]("sdpa")
    ids = tools["prompt"](200)
    with memory(), probing(model.model.language_model.layers[1].self_attn) as probe:
        model(input_ids=ids)
        largest = 0

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                nonlocal largest
                result = function(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor):
                    largest = max(largest, result.numel())
                return result

        with Watch():
            probe.rows(torch.tensor([0]), torch.tensor([[200]]), torch.arange(50)[None])
    keys = ids.shape[1]
    assert largest <= max(4 * keys, 2 * keys * 8)  # logits of 4 heads, or the keys of 2 heads in float32
    assert largest < keys * keys


def test_config_object_and_attributes_are_restored(tools, attention):
    module = tools["tiny_llava"](attention).model.language_model.layers[1].self_attn
    before, own, kind = dict(vars(module)), module.config, type(module)
    configs = []

    def fail_inside() -> None:
        with memory(), probing(module):
            configs.append(module.config)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert configs[0] is not own
    assert module.config is own
    assert type(module) is kind
    assert dict(vars(module)) == before
