"""Statistics of heads equal what brute force finds in full eager attention maps, and leave no trace on the model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from headwise.errors import DataError, ModelError
from headwise_adapters.heads import statistics as head_statistics
from headwise_adapters.heads.statistics import COPIED, REPEATS, measure

VOCAB, LAYERS, HEADS = 50, 3, 4
PAD, BOS, EOS = 0, 1, (2, 3)
FAMILIES = {
    "gpt_neox": ("GPTNeoX", {}),  # a quarter of each head is rotary by default
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 9}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
}


def tiny(family: str, attention: str = "sdpa"):
    name, settings = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=256, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=list(EOS), **settings,
    )  # fmt: skip
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():  # the default initialisation is so small that attention is flat
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return model


def text(length: int, seed: int = 1, first: int | None = None) -> torch.Tensor:
    ids = torch.randint(4, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))
    return ids if first is None else torch.cat([torch.tensor([first]), ids[1:]])


@torch.no_grad()
def maps(family: str, ids: torch.Tensor) -> np.ndarray:
    """Full attention maps of an eager model, (l, h, n, n)."""
    found = tiny(family, "eager")(input_ids=ids[None], output_attentions=True).attentions
    return torch.stack(found)[:, 0].double().numpy()


def brute_force(full: np.ndarray, rows: range, sinks: int):
    """Sink share, mass by distance and relative entropy, one weight after the other."""
    layers, heads, length, _ = full.shape
    sink, distance = np.zeros((layers, heads)), np.zeros((layers, heads, length))
    entropy = np.zeros((layers, heads))
    for layer, head, i in itertools.product(range(layers), range(heads), rows):
        for j in range(i + 1):
            weight = full[layer, head, i, j] / len(rows)
            if j < sinks:
                sink[layer, head] += weight
            else:
                distance[layer, head, i - j] += weight
        row = [weight for weight in full[layer, head, i] if weight > 0]
        entropy[layer, head] -= sum(weight * math.log(weight) for weight in row) / math.log(i + 1) / len(rows)
    return sink, distance, entropy


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sinks", [0, 4])
def test_shares_are_those_of_full_eager_maps_summed_by_hand(family, sinks):
    ids = text(43)
    shares = measure(tiny(family), ids, segments=3, first=8).attention(sinks)
    assert (shares.sinks, shares.rows) == (sinks, 11)
    assert shares.sink.shape == shares.entropy.shape == (3, LAYERS, HEADS)
    full = maps(family, ids)
    for segment, rows in enumerate([range(10, 21), range(21, 32), range(32, 43)]):
        sink, distance, entropy = brute_force(full, rows, sinks)
        np.testing.assert_allclose(sink, shares.sink[segment], atol=1e-5)
        np.testing.assert_allclose(distance, shares.distance[segment], atol=1e-5)
        np.testing.assert_allclose(entropy, shares.entropy[segment], atol=1e-5)
    np.testing.assert_allclose(1, shares.sink + shares.distance.sum(axis=-1), atol=1e-5)


@pytest.mark.parametrize(
    ("length", "segments", "first", "expected"),
    [
        (1600, 8, 256, [range(256, 424), range(1432, 1600)]),
        (43, 4, 256, [range(11, 19), range(35, 43)]),  # 43 // 4 = 10, and one row too many for four segments
        (10, 8, 256, [range(2, 3), range(9, 10)]),
    ],
)
def test_rows_begin_at_first_or_after_a_quarter_of_a_short_text(length, segments, first, expected):
    spans = head_statistics._spans(length, segments, first)
    assert expected == [spans[0], spans[-1]]
    assert len(spans) == segments
    assert all(one.stop == other.start for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize("room", [1, HEADS * 44 * 3])
def test_small_blocks_of_rows_give_what_one_block_gives(monkeypatch, room):
    model, ids = tiny("llama"), text(44)
    one = measure(model, ids)
    expected, expected_copies = one.attention(4), one.copying()
    monkeypatch.setattr(head_statistics, "ROOM", room)
    blocks = measure(model, ids)
    for name in ("sink", "distance", "entropy"):
        np.testing.assert_allclose(getattr(expected, name), getattr(blocks.attention(4), name), atol=1e-7)
    np.testing.assert_allclose(expected_copies, blocks.copying(), atol=1e-7)


def test_no_tensor_is_as_large_as_an_attention_map(monkeypatch):
    monkeypatch.setattr(head_statistics, "ROOM", 4 * 300 * 4)
    model, statistics = tiny("gpt_neox"), None
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= result.nbytes:
                largest = max(largest, result.numel())
            return result

    statistics = measure(model, text(300))
    with Watch():
        statistics.attention(4)
    widest = 300 * max(VOCAB, 48, 3 * 32)  # hidden states and projections of the text itself
    assert largest <= max(4 * 300 * 4, widest)
    assert largest < HEADS * 300 * 300 / 10


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("first", [None, BOS])
def test_copying_is_attention_on_what_followed_the_first_copy(family, first):
    model, given = tiny(family), []
    keep = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["input_ids"][0]), with_kwargs=True
    )
    mean, error = measure(model, text(40, first=first), special=[7], seed=3).copying()
    keep.remove()
    opening = 0 if first is None else 1
    count = VOCAB - 5  # the model's own special tokens and the caller's
    assert len(given) == REPEATS
    scores = []
    for ids in given:
        copies = ids[opening:].view(2, count)
        assert ids[:opening].tolist() == [BOS][:opening]
        assert torch.equal(copies[0], copies[1])
        assert sorted(copies[0].tolist()) == sorted(set(range(VOCAB)) - {PAD, BOS, *EOS, 7})
        full = maps(family, ids)
        pairs = [(opening + count + i, opening + i + 1) for i in range(count - 1)]
        scores.append(np.mean([full[:, :, query, key] for query, key in pairs], axis=0))
    np.testing.assert_allclose(np.mean(scores, axis=0), mean, atol=1e-6)
    np.testing.assert_allclose(np.std(scores, axis=0, ddof=1) / math.sqrt(REPEATS), error, atol=1e-6)
    assert len({tuple(ids.tolist()) for ids in given}) == REPEATS


def test_copying_follows_its_seed_and_not_the_text():
    model = tiny("llama")
    mean = measure(model, text(40)).copying()[0]
    np.testing.assert_array_equal(mean, measure(model, text(40, seed=9)).copying()[0])
    assert np.abs(mean - measure(model, text(40), seed=1).copying()[0]).max() > 1e-4


def test_random_tokens_are_never_more_than_the_model_has_positions_for():
    lengths = {tokens.numel() for tokens in measure(tiny("llama"), text(40))._random_tokens(set())}
    assert lengths == {VOCAB}
    model = tiny("llama")
    model.config.max_position_embeddings = 31
    assert {tokens.numel() for tokens in measure(model, text(40))._random_tokens(set())} == {15}
    model.config.max_position_embeddings, model.config.vocab_size = 2048, 4000
    assert {tokens.numel() for tokens in measure(model, text(40))._random_tokens(set())} == {COPIED}


@torch.no_grad()
def losses(model, ids, layer=None, heads=(), sinks=0, window=0):
    """Nats of each next token when some query heads of one layer see the first and last tokens only."""
    n = len(ids)
    behind = torch.arange(n)[:, None] - torch.arange(n)
    visible = (behind >= 0).repeat(HEADS, 1, 1)
    for head in heads:
        visible[head] &= (behind < window) | (torch.arange(n) < sinks)
    mask = torch.zeros(HEADS, n, n).masked_fill(~visible, float("-inf"))[None]

    def limit(module, args, kwargs):
        return args, {**kwargs, "attention_mask": mask}

    layers = model.get_decoder().layers
    module = next(child for name, child in layers[layer or 0].named_children() if name in ("attention", "self_attn"))
    hook = module.register_forward_pre_hook(limit, with_kwargs=True)
    logits = model(input_ids=ids[None]).logits[0, :-1]
    hook.remove()
    return F.cross_entropy(logits, ids[1:], reduction="none").double().numpy()


@pytest.mark.parametrize(("family", "kv_heads"), [("gpt_neox", 4), ("llama", 2)])
def test_sensitivity_is_the_rise_of_the_loss_of_a_masked_eager_forward(family, kv_heads):
    ids, sinks, window = text(40), 2, 5
    mean, error = measure(tiny(family), ids).sensitivity(sinks, window)
    eager, group = tiny(family, "eager"), HEADS // kv_heads
    full = losses(eager, ids)
    for layer, kv_head in itertools.product(range(LAYERS), range(kv_heads)):
        shared = range(kv_head * group, (kv_head + 1) * group)
        rise = (losses(eager, ids, layer, shared, sinks, window) - full)[sinks + window :]
        np.testing.assert_allclose(rise.mean(), mean[layer, list(shared)], atol=1e-5)
        np.testing.assert_allclose(
            rise.std(ddof=1) / math.sqrt(40 - 1 - sinks - window), error[layer, list(shared)], atol=1e-5
        )
    assert np.abs(mean).min() > 1e-3  # every head of this model matters, so a head left out would be noticed


def test_tokens_before_the_window_is_outgrown_lose_nothing():
    """What is left out of the mean is zero: the query at sinks + window is the first that misses an entry."""
    eager, ids = tiny("llama", "eager"), text(40)
    rise = losses(eager, ids, 0, [0, 1], 2, 5) - losses(eager, ids)
    assert np.abs(rise[:7]).max() < 1e-6 < np.abs(rise[7])


def fingerprint(model) -> dict:
    """Everything that a measurement could have left behind."""
    return {
        name: (
            module.training,
            id(getattr(module, "config", None)),
            sorted(vars(module)),
            [len(getattr(module, hooks)) for hooks in ("_forward_hooks", "_forward_pre_hooks")],
        )
        for name, module in model.named_modules()
    }


def test_model_is_as_it_was_also_after_an_exception():
    model, ids = tiny("gpt_neox"), text(40)
    before, weights = fingerprint(model), {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    statistics = measure(model, ids)
    statistics.attention(4)
    statistics.copying()
    statistics.sensitivity(1, 8)

    def stop(*_):
        raise KeyError

    with pytest.raises(KeyError):
        measure(model, ids, progress=stop).attention(4)
    assert before == fingerprint(model)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_measurement_is_made_once_when_it_is_asked_for():
    model, calls, steps = tiny("llama"), [], []
    model.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
    statistics = measure(model, text(40), progress=lambda *step: steps.append(step))
    assert not calls
    assert statistics.asked == set()
    assert statistics.attention(4) is statistics.attention(4)
    assert len(calls) == 1
    assert statistics.attention(0) is not statistics.attention(4)
    assert statistics.asked == {"attention"}
    assert steps[:LAYERS] == [("attention", layer + 1, LAYERS) for layer in range(LAYERS)]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (text(9), r"^a text of 9 tokens is too short for 8 segments of attention rows; give a longer one$"),
        (text(40)[None], r"^a text is one row of token ids, not torch.int64 of shape \(1, 40\)$"),
        (torch.rand(40), r"^a text is one row of token ids, not torch.float32 of shape \(40,\)$"),
    ],
)
def test_a_text_that_is_none_is_refused(ids, told):
    with pytest.raises(DataError, match=told):
        measure(tiny("llama"), ids)


def test_a_text_that_never_outgrows_the_window_is_refused():
    with pytest.raises(DataError, match=r"^a text of 40 tokens never outgrows 4 sinks and a window of 64$"):
        measure(tiny("llama"), text(40)).sensitivity(4, 64)


def test_a_model_without_an_adapter_is_refused():
    with pytest.raises(ModelError, match="no adapter for Linear"):
        measure(torch.nn.Linear(1, 1), text(40))
