"""Situations that users report in public trackers: wrapped and quantised models, masks, defaults, direct calls.

Each gives what the stock model gives with masked keys, or is refused in a sentence before anything is computed.
"""

from __future__ import annotations

import copy

import pytest
import torch
from tests.adapters.conftest import padded, pixels, prompt, tiny_llava
from tests.adapters.decoders import tiny, tokens
from tests.adapters.stages import Watch, one_stage
from tests.adapters.vision_models import END, IMAGE, START, VIDEO, Prompt, tiny_qwen
from tests.situations.oracle import Rules
from tests.situations.oracle import logits as oracle
from torch import nn
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise.registry import installed

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WINDOW = Recipe.of("window:window=7")
FASTV = Recipe.of("fastv:layer=1", keep=4)
QUESTION = prompt(5, "image", 6)


def in_window(model, ids, *, real=None, window=7, sinks=0, **given):
    """What the stock model says where each query sees sinks and the window before it, of tokens that are ``real``."""
    real = torch.ones(ids.shape, dtype=torch.bool) if real is None else real
    rank, place = real.long().cumsum(-1) - 1, torch.arange(ids.shape[1])
    q, k = rank[:, :, None], rank[:, None, :]
    seen = (place[:, None] >= place) & ((k < sinks) | (q - k < window)) & real[:, None, :]
    seen = (seen | torch.eye(len(place), dtype=torch.bool))[:, None]
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    hidden = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return stock(ids, attention_mask=hidden, **given).logits


class Kept:
    """An observer: the visual tokens that are left of one prompt, stage by stage."""

    def __init__(self) -> None:
        self.stages: list[tuple[int, list[int]]] = []

    @headwise.hookimpl
    def selected(self, selection) -> None:
        self.stages.append((selection.layer, selection.kept[0].tolist()))

    def gone(self, ids) -> dict[int, list[int]]:
        visual = [p for p in range(ids.shape[1]) if ids[0, p] == IMAGE]
        left, found = list(range(len(visual))), {}
        for layer, kept in self.stages:
            found[layer], left = [visual[n] for n in left if n not in kept], kept
        return found


def as_the_oracle_says(model, ids, kept):
    images = Prompt(ids, (16,), {"pixel_values": pixels(1)})
    return oracle(model, [images], ids[0], Rules(gone=kept.gone(ids)))


# Calls that do not go through the model's own call: PEFT calls the `forward` of what it wraps


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_a_forward_called_directly_evicts(family):
    model, ids = tiny(family), tokens(40)[None]
    text = model.gpt_neox if family == "neox" else model.model
    head = model.lm_head
    with headwise.attach(model, WINDOW):
        found = [model.forward(ids).logits, head(text.forward(ids)[0]), head(text(ids)[0])]
    for logits in found:
        torch.testing.assert_close(logits, in_window(model, ids), **CLOSE)
    torch.testing.assert_close(model.forward(ids).logits, model(ids).logits)


def test_what_labels_protect_stays_in_a_forward_called_directly():
    model, ids = tiny_llava(), prompt(5, "image", 1)
    labels = torch.full_like(ids, -100)
    labels[0, -1] = ids[0, -1]  # the last visual token predicts it
    kept = Kept()
    with headwise.attach(model, FASTV, observers=[kept]):
        loss = model.forward(input_ids=ids, pixel_values=pixels(1), labels=labels).loss
    assert 15 in kept.stages[0][1]
    expected = as_the_oracle_says(model, ids, kept)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected[-2:-1], ids[0, -1:]), **CLOSE)


def test_an_inner_forward_called_directly_prunes():
    model = tiny_llava("sdpa")
    with headwise.attach(model, FASTV):
        direct = model.model.forward(input_ids=QUESTION, pixel_values=pixels(1)).last_hidden_state
        called = model.model(input_ids=QUESTION, pixel_values=pixels(1)).last_hidden_state
    torch.testing.assert_close(direct, called)
    assert (direct[0] == 0).all(dim=-1).sum() == 12


def test_a_forward_that_somebody_wraps_inside_a_block_goes_through_it_once():
    """As accelerate does it, which keeps the forward that it found."""
    model, ids, seen = tiny("llama"), tokens(40)[None], []
    with headwise.attach(model, WINDOW):
        found = model.model.forward

        def wrapped(*args, **kwargs):
            seen.append(1)
            return found(*args, **kwargs)

        model.model.forward = wrapped
        inside = model(ids).logits
    assert len(seen) == 1
    torch.testing.assert_close(inside, in_window(tiny("llama"), ids), **CLOSE)
    torch.testing.assert_close(model(ids).logits, tiny("llama")(ids).logits)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_arguments_may_be_given_by_their_place(family):
    model, ids = tiny(family), tokens(40)[None]
    text, mask = model.gpt_neox if family == "neox" else model.model, torch.ones_like(ids)
    with headwise.attach(model, WINDOW):
        found = model.lm_head(text(ids, mask, torch.arange(40)[None])[0])
    torch.testing.assert_close(found, in_window(model, ids), **CLOSE)


@pytest.mark.parametrize("way", ["module", "get_base_model"])
def test_what_wraps_a_model_is_refused_and_says_what_to_attach_to(way):
    class Wrapper(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner, self.config = model, model.config

    wrapper = Wrapper(tiny("llama"))
    setattr(wrapper, way, wrapper.inner if way == "module" else lambda: wrapper.inner)
    with pytest.raises(ModelError, match=rf"a Wrapper wraps the model; attach to what is inside \(model\.{way}"):
        headwise.cache(wrapper, WINDOW)


# Configurations


@pytest.mark.parametrize("by", ["call", "config"])
def test_no_cache_wanted_is_no_cache_whoever_says_so(by):
    model, ids = tiny("llama"), tokens(40)[None]
    given = {"use_cache": False} if by == "call" else {}
    model.config.use_cache = by == "call"
    with (
        headwise.attach(model, Recipe.of("knorm:budget=6,every=1")),
        pytest.raises(ModelError, match="nothing would be evicted; use a cache"),
    ):
        model(ids, **given)
    with headwise.attach(model, WINDOW):
        out = model(ids, **given)
        assert out.past_key_values is None
        assert len(model.model(ids, **given, return_dict=False)) == 1
    torch.testing.assert_close(out.logits, in_window(model, ids), **CLOSE)


def test_layers_that_were_cut_off_are_noticed_and_layers_too_many_are_not_run():
    model, ids = tiny("llama"), tokens(30)[None]
    model.config.num_hidden_layers = 2
    with headwise.attach(model, WINDOW):
        found = model(ids).logits
    torch.testing.assert_close(found, in_window(model, ids), **CLOSE)
    model.config.num_hidden_layers, model.model.layers = 3, model.model.layers[:2]
    with pytest.raises(ModelError, match=r"has 2 layers, and its config says 3; set the config's num_hidden_layers"):
        headwise.cache(model, WINDOW)
    seeing = tiny_llava()
    seeing.model.language_model.layers = seeing.model.language_model.layers[:2]
    with pytest.raises(ModelError, match="has 2 layers, and its config says 4"), headwise.attach(seeing, FASTV):
        pass


@pytest.mark.parametrize("by", ["call", "config"])
@pytest.mark.parametrize("recipe", [WINDOW, FASTV])
def test_attention_in_both_directions_is_refused(by, recipe):
    model = tiny_llava("sdpa")
    given = {"is_causal": False} if by == "call" else {}
    if by == "config":
        model.model.language_model.config.is_causal = False
    with headwise.attach(model, recipe), pytest.raises(ModelError, match=r"both directions \(is_causal=False\)"):
        model(input_ids=QUESTION, pixel_values=pixels(1), **given)


@pytest.mark.parametrize("text", ["vispruner", "visionzip", "tome", "cdpruner"])
def test_a_feature_layer_of_one_call_is_refused_where_the_tower_is_looked_at(text):
    model = tiny_llava("sdpa")
    inputs = {"input_ids": QUESTION, "pixel_values": pixels(1)}
    with (
        headwise.attach(model, Recipe.of(text, keep=4)),
        pytest.raises(ModelError, match=r"gives vision_feature_layer=-1, and .* says \(-2\); set it in the config"),
    ):
        model(**inputs, vision_feature_layer=-1)
    other = copy.deepcopy(model)
    other.config.vision_feature_layer = -1
    with headwise.attach(model, FASTV), headwise.attach(other, FASTV):  # which looks at no tower
        torch.testing.assert_close(model(**inputs, vision_feature_layer=-1).logits, other(**inputs).logits)


def test_videos_alone_are_refused_where_nothing_of_them_would_be_pruned():
    model, frames = tiny_qwen("sdpa"), torch.randn(2 * 16, 24, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 9, START, *[VIDEO] * 8, END, 11, 12]])
    inputs = {"input_ids": ids, "pixel_values_videos": frames, "video_grid_thw": torch.tensor([[2, 4, 4]]),
              "mm_token_type_ids": 2 * (ids == VIDEO).int()}  # fmt: skip
    with (
        headwise.attach(model, FASTV),
        pytest.raises(ModelError, match="have videos and no picture, and tokens of videos are not pruned"),
    ):
        model(**inputs)
    with headwise.attach(model, Recipe.of("window:window=500")):
        found = model(**inputs).logits
    torch.testing.assert_close(found, model(**inputs).logits, **CLOSE)


# Masks


@pytest.mark.parametrize("columns", [10, 39, 41])
@pytest.mark.parametrize("recipe", [WINDOW, FASTV])
def test_a_mask_that_does_not_cover_all_tokens_is_refused(columns, recipe):
    """The stock model hides what a short mask leaves out, and reads a long one from its beginning."""
    model, ids = tiny_llava("sdpa"), prompt(5, "image", 8)
    with headwise.attach(model, recipe):
        cache = model(input_ids=ids, pixel_values=pixels(1)).past_key_values
        with pytest.raises(ModelError, match=f"mask has {columns} columns for 40 tokens, those in the cache included"):
            model(tokens(10)[None] % 50 + 5, past_key_values=cache, attention_mask=torch.ones(1, columns))
        model(tokens(10)[None] % 50 + 5, past_key_values=cache, attention_mask=torch.ones(1, 40))


@pytest.mark.parametrize("family", ["llama", "neox"])
@pytest.mark.parametrize(("text", "sinks", "window"), [
    ("window:window=7", 0, 7), ("streaming:sinks=2,window=5,positions=original", 2, 5),
])  # fmt: skip
def test_holes_and_padding_on_both_sides_of_one_batch_are_followed(family, text, sinks, window):
    model, ids = tiny(family), torch.stack([tokens(30, seed) for seed in range(3)])
    mask = torch.ones(3, 30, dtype=torch.long)
    mask[0, :8] = mask[1, 20:] = mask[2, 9:14] = mask[2, 20] = 0
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    with headwise.attach(model, Recipe.of(text)):
        found = model(ids, attention_mask=mask, position_ids=places).logits
    real = mask.bool()
    expected = in_window(model, ids, real=real, sinks=sinks, window=window, position_ids=places)
    torch.testing.assert_close(found[real], expected[real], **CLOSE)


@pytest.mark.parametrize("text", ["window:window=7", "h2o:budget=8,every=1", "snapkv:budget=9,queries=4,every=2",
                                  "adakv:of=[knorm:budget=8,every=2]"])  # fmt: skip
def test_a_row_of_nothing_but_padding_changes_no_other(text):
    model, ids, mask = tiny("llama"), torch.stack([tokens(30), tokens(30)]), torch.ones(2, 30, dtype=torch.long)
    mask[1] = 0
    options = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    with headwise.attach(model, Recipe.of(text)):
        both = model.generate(ids, attention_mask=mask, **options)
        assert torch.equal(both[:1], model.generate(ids[:1], **options))


@pytest.mark.parametrize("text", ["fastv:layer=1", "sparsevlm", "divprune", "visionzip", "pdrop:layers=1/2/3"])
def test_a_row_of_nothing_but_padding_changes_no_picture(text):
    model = tiny_llava("sdpa")
    with headwise.attach(model, Recipe.of(text, keep=4)):
        inputs = padded([QUESTION, QUESTION], "left")
        inputs["input_ids"][1] = inputs["attention_mask"][1] = 0
        both = model(**inputs, pixel_values=pixels(1)).logits[:1]
        torch.testing.assert_close(both, model(input_ids=QUESTION, pixel_values=pixels(1)).logits, **CLOSE)


@pytest.mark.parametrize("tail", [6, 0])
@pytest.mark.parametrize("text", ["fastv:layer=1", "divprune", "pdrop:layers=1/2/3", "feather:layer=1,second_layer=3",
                                  "fastv:layer=1 system_and_text"])  # fmt: skip
def test_an_image_at_the_very_first_place(text, tail):
    ids, kept = prompt("image", tail)[:, 1:], Kept()
    model = tiny_llava()
    with headwise.attach(model, Recipe.of(*text.split(), keep=4), observers=[kept]):
        found = model(input_ids=ids, pixel_values=pixels(1)).logits
    torch.testing.assert_close(found[0, -1], as_the_oracle_says(model, ids, kept)[-1], **CLOSE)


# How a model computes


class Packed(nn.Module):
    """A linear layer in 8 bit as torch's own quantisation keeps it: no parameter is left."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.packed = (linear.weight / self.scale).round().to(torch.int8)
        self.given = None if linear.bias is None else linear.bias.detach()

    def forward(self, states):
        return nn.functional.linear(states, self.packed * self.scale, self.given)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_quantised_layers_without_parameters_are_no_obstacle(family):
    model, ids = tiny(family), tokens(40)[None]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not model.lm_head:
                setattr(parent, name, Packed(child))
    for text in ("window:window=7", "streaming:window=7", "snapkv:budget=9,queries=4"):
        with headwise.attach(model, Recipe.of(text)):
            found = model(ids).logits
        if text == "window:window=7":
            torch.testing.assert_close(found, in_window(model, ids), **CLOSE)


CHOOSING = [name for name in installed("token_pruning") if name not in ("none", "calibrated")]


def said_by(text: str, dtype: torch.dtype):
    """Logits of a model whose weights and pictures are the same, whatever type torch makes numbers of."""
    keep = {"keep": 4} if text.startswith(("token_pruning", "fastv")) else {}
    model, seen = tiny_llava("sdpa"), pixels(1)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with headwise.attach(model, Recipe.of(*text.split(), **keep)):
            cache = model(input_ids=QUESTION, pixel_values=seen).past_key_values
            return model(QUESTION[:, -3:], past_key_values=cache).logits
    finally:
        torch.set_default_dtype(usual)


@pytest.mark.parametrize("text", [*CHOOSING, "fastv:layer=1 head_scoring=random fixed:heads=2", "h2o:budget=8,every=1",
                                  "kv_eviction=random:budget=8", "expected_attention:budget=8,every=2",
                                  "streaming:window=6", "keydiff:budget=8,every=1", "lagkv"])  # fmt: skip
def test_the_default_type_of_numbers_changes_nothing(text):
    text = f"token_pruning={text}" if text in CHOOSING else text
    torch.testing.assert_close(said_by(text, torch.float64), said_by(text, torch.float32))


@pytest.mark.parametrize("text", ["window:window=7", "streaming:window=6", "snapkv:budget=9", "random:budget=8"])
def test_another_default_device_changes_nothing(text):
    """Of a machine with several; meta stands for any."""
    model, ids = tiny("llama"), tokens(40)[None]
    with headwise.attach(model, Recipe.of(f"kv_eviction={text}")):
        expected = model(ids).logits
    given = {"position_ids": torch.arange(40)[None], "attention_mask": torch.ones_like(ids)}
    model = tiny("llama")
    with torch.device("meta"), headwise.attach(model, Recipe.of(f"kv_eviction={text}")):
        found = model(ids, **given).logits
    torch.testing.assert_close(found, expected)


def test_strategies_compute_in_float32_under_autocast():
    def select(evidence):
        near = 1 + torch.arange(evidence.visual).float().expand(evidence.batch, -1) * 2**-12  # equal in bfloat16
        return (near.unsqueeze(-1) @ torch.ones(1, 1)).squeeze(-1)

    model, watch = tiny_llava("sdpa"), Watch()
    with torch.autocast("cpu", torch.bfloat16), headwise.attach(model, one_stage(select, 4, 1), observers=[watch]):
        model(input_ids=QUESTION, pixel_values=pixels(1))
    assert watch.kept[0].kept.tolist() == [[12, 13, 14, 15]]


def test_merged_tokens_are_weighted_in_float32_under_autocast():
    def select(evidence):
        weights = torch.zeros(evidence.batch, 4, evidence.visual)
        weights[:, range(4), range(4)] = 1.0
        return headwise.plan.Merged(torch.arange(4).expand(evidence.batch, -1), weights)

    def first(evidence):
        return torch.arange(4).expand(evidence.batch, -1)

    model, states = tiny_llava("sdpa"), []
    layer = model.model.language_model.layers[1]
    with torch.autocast("cpu", torch.bfloat16):
        for recipe in (one_stage(select, 4, 1), one_stage(first, 4, 1)):
            hook = layer.register_forward_pre_hook(lambda _, given: states.append(given[0]))
            with headwise.attach(model, recipe):
                model(input_ids=QUESTION, pixel_values=pixels(1))
            hook.remove()
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)  # of one token each: nothing is merged


@pytest.mark.parametrize("text", ["adakv:of=[knorm:budget=8,every=2]", "expected_attention:budget=8,every=2",
                                  "h2o:budget=8,every=1"])  # fmt: skip
def test_eviction_under_autocast(text):
    model, ids = tiny("llama"), tokens(40)[None]
    with torch.autocast("cpu", torch.bfloat16), headwise.attach(model, Recipe.of(text)):
        out = model.generate(ids, max_new_tokens=5, eos_token_id=None, return_dict_in_generate=True)
    assert {sum(layer.entries()) for layer in out.past_key_values.layers} <= {16, 18}  # of two KV heads


@pytest.mark.parametrize("text", ["window:window=7", "adakv:of=[knorm:budget=8,every=2]", "tova:budget=8,every=1"])
def test_a_cache_of_inference_mode_goes_on_where_gradients_are_kept(text):
    model, ids = tiny("llama"), tokens(40)[None]
    one, other = (headwise.cache(model, Recipe.of(text)) for _ in range(2))
    with torch.inference_mode():
        model(ids[:, :20], past_key_values=one)
    model(ids[:, :20], past_key_values=other)
    for place in range(20, 30):
        step = ids[:, place : place + 1]
        with torch.enable_grad():
            found = model(step, past_key_values=one).logits
        torch.testing.assert_close(found.detach(), model(step, past_key_values=other).logits)


def test_what_a_trainer_hands_to_the_loss_does_not_hinder_eviction():
    model, ids = tiny("llama"), tokens(40)[None]
    with headwise.attach(model, WINDOW):
        loss = model(ids, labels=ids, num_items_in_batch=torch.tensor(80)).loss
        shifted = model(ids, labels=ids, shift_labels=nn.functional.pad(ids[:, 1:], (0, 1), value=-100)).loss
        with pytest.raises(ModelError, match=r"computes attention with strange, which .* leave it out of the call"):
            model(ids, strange=torch.ones(1))
    expected = nn.functional.cross_entropy(in_window(model, ids)[0, :-1], ids[0, 1:], reduction="sum")
    torch.testing.assert_close(loss, expected / 80, **CLOSE)
    torch.testing.assert_close(shifted, expected / 39, **CLOSE)


@pytest.mark.parametrize("text", ["window:window=500", "streaming:window=500", "window:window=7", "knorm:budget=500"])
def test_gradients_through_a_cache_are_the_stock_models_or_refused(text):
    model, ids = tiny("llama"), tokens(30)[None]

    def gradient(cache, *spans, quietly=()):
        states = model.get_input_embeddings()(ids).detach().requires_grad_()
        for number, (start, end) in enumerate(spans):
            with torch.set_grad_enabled(number not in quietly):
                logits = model(inputs_embeds=states[:, start:end], past_key_values=cache).logits
        logits[0, -1].logsumexp(0).backward()
        return states.grad

    evicting, chunks = Recipe.of(text), ((0, 15), (15, 29), (29, 30))
    with torch.enable_grad():
        if text.startswith("knorm"):
            found = gradient(headwise.cache(model, evicting), *chunks)
            return torch.testing.assert_close(found, gradient(DynamicCache(), *chunks))
        for spans in (chunks, chunks[:2], ((0, 29), (29, 30))):
            with pytest.raises(ModelError, match="gradients do not flow back through what a cache that evicts holds"):
                gradient(headwise.cache(model, evicting), *spans)
        if "500" in text:
            for spans, quietly in ((chunks, (0, 1)), (chunks[:2], (0,)), (((0, 30),), ()), (((0, 1),), ())):
                found = gradient(headwise.cache(model, evicting), *spans, quietly=quietly)
                torch.testing.assert_close(found, gradient(DynamicCache(), *spans, quietly=quietly))
    return None


@pytest.mark.parametrize("options", [
    {"tokenizer": True},
    {"prefix_allowed_tokens_fn": lambda *_: list(range(5, 50))}, {"stopping_criteria": StoppingCriteriaList()},
    {"logits_processor": LogitsProcessorList()}, {"custom_generate": True}, {"repetition_penalty": 3.0},
    {"guidance_scale": 1.5, "negative_prompt_ids": torch.tensor([[9, 8, 7]])}, {"prefill_chunk_size": 9},
])  # fmt: skip
def test_what_generate_is_given_beside_a_prompt_is_no_matter_of_attention(options):
    def loop(model, input_ids, **_):
        cache, ids = DynamicCache(), input_ids
        for _ in range(9):
            logits = model(ids[:, cache.get_seq_length() :], past_key_values=cache).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
        return ids

    given = {name: {"tokenizer": object(), "custom_generate": loop}[name] if value is True else value
             for name, value in options.items()}  # fmt: skip
    usual = {"max_new_tokens": 9, "eos_token_id": None, "pad_token_id": 0}
    model, ids = tiny("llama"), tokens(30)[None]
    with headwise.attach(model, Recipe.of("window:window=500")):
        found = model.generate(ids, **usual, **given)
    assert torch.equal(found, model.generate(ids, **usual, **given))


@pytest.mark.parametrize("change", ["replaced", "converted", "stretched"])
@pytest.mark.parametrize("text", ["streaming:sinks=2,window=7", "snapkv:budget=9,queries=4,every=2,rerotate=true"])
def test_rotary_embeddings_that_change_inside_a_block_are_followed(text, change):
    model, ids = tiny("llama"), tokens(30)[None]

    def said():
        cache = DynamicCache()
        spans = ((0, 12), *((start, start + 1) for start in range(12, 18)))
        return [model(ids[:, start:end], past_key_values=cache).logits[:, -1] for start, end in spans]

    with headwise.attach(model, Recipe.of(text)):
        said()
        if change == "converted":
            model.to(torch.bfloat16)
        else:
            config = copy.deepcopy(model.config)
            config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
            other = LlamaRotaryEmbedding(config)
            if change == "replaced":
                model.model.rotary_emb = other
            else:
                model.model.rotary_emb.inv_freq = other.inv_freq
        inside = said()
    with headwise.attach(model, Recipe.of(text)):
        torch.testing.assert_close(inside, said())
