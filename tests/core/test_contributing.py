"""What CONTRIBUTING.md shows works: strategies meet every law of their hook, the adapter prunes its model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import attrs
import pytest
import torch
from tests.adapters.vision_models import scattered
from tests.reference import masked_vlm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    LlamaConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

import headwise
from headwise.attachment import adapter_for
from headwise.cli import main
from headwise.families import geometry_of
from headwise.recipe import Recipe
from headwise.testing import cases, laws

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = [dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", TEXT, flags=re.DOTALL | re.MULTILINE)]
SNIPPETS = [
    pytest.param(*found.groups(), block, id=str(number))
    for number, block in enumerate(BLOCKS)
    if (found := re.match(r"# plugins/headwise_plugins/(\w+)/(\w+)\.py\n", block))
]
ADAPTERS = [block for block in BLOCKS if block.startswith("# adapters/headwise_adapters/families/vipllava.py\n")]


def test_every_hook_with_laws_has_an_example():
    assert sorted(snippet.values[0] for snippet in SNIPPETS) == [
        "head_classification",
        "head_count",
        "head_count",
        "head_scoring",
        "kv_eviction",
        "kv_eviction",
        "query_selection",
        "token_pruning",
    ]


@pytest.mark.parametrize(("hook", "name", "source"), SNIPPETS)
def test_example_meets_every_law_of_its_hook(install, hook, name, source):
    (kind,) = re.findall(r"^class (\w+)", source, flags=re.MULTILINE)
    install("zebra", "1.2", {hook: {name: f"zebra_{name}:{kind}"}}, **{f"zebra_{name}": source})
    found = cases(hook, [name])
    assert len(found) == len(laws(hook))
    for case in found:
        case.values[0]()


def test_every_block_is_tried():
    studies = [block for block in BLOCKS if block.startswith("# ranks.py")]  # tests/core/test_contributing_study.py
    assert len(SNIPPETS) + len(ADAPTERS) + len(studies) == len(BLOCKS)


def tiny_vipllava():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, pad_token_id=0
    )
    config = VipLlavaConfig(
        vision_config=vision, text_config=text, image_token_index=4, vision_feature_layers=[-2, 1], image_seq_length=16
    )
    return scattered(VipLlavaForConditionalGeneration(config))


@pytest.fixture
def vipllava(install):
    """The example, installed as another package would."""
    (source,) = ADAPTERS
    assert '`vipllava = "headwise_adapters.families.vipllava:VIPLLAVA"` is the line' in TEXT
    install("zebra", "1.2", {"adapter": {"vipllava": "zebra_vip:VIPLLAVA"}}, zebra_vip=source)
    return source


def test_a_vision_family_is_a_short_file(vipllava):
    assert len([line for line in vipllava.splitlines() if line.strip()]) <= 25


def planned(folder, capsys, *words):
    assert main(["plan", "--shape", str(folder), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_example_family_is_planned_for_from_its_configuration(vipllava, tmp_path, capsys):
    model = tiny_vipllava()
    model.config.save_pretrained(tmp_path)
    record = planned(tmp_path, capsys, "--strategy", "token_pruning=uniform:layer=2", "--keep", "4")
    assert (record["budget"]["visual"], record["processed_per_layer"]) == (16, [16, 16, 4, 4])
    found = adapter_for(model).geometry
    assert attrs.evolve(geometry_of(str(tmp_path)), name=found.name) == found


@torch.no_grad()
def test_a_text_family_is_one_line(install, tmp_path, capsys):
    (line,) = re.findall(r'^(\w+) = "(headwise_adapters\.families\.text:\w+)"$', TEXT, flags=re.MULTILINE)
    install("zebra", "1.2", {"adapter": dict([line])})
    config = AutoConfig.for_model(
        line[0], vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    record = planned(tmp_path, capsys, "--strategy", "window:window=6", "--seen", "20")
    assert record["kv_eviction"]["entries_per_layer"] == [6, 6, 6]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(5, 60, (1, 20))
    stock = model(ids).logits
    with headwise.attach(model, Recipe.of("window:window=500")):
        torch.testing.assert_close(model(ids).logits, stock)
    with headwise.attach(model, Recipe.of("window:window=6")):
        assert not torch.allclose(model(ids).logits, stock)


@torch.no_grad()
def test_example_family_prunes_its_model(vipllava):
    model = tiny_vipllava()
    ids = torch.tensor([[1, 7, *[4] * 16, 9, 8]])
    images = {"pixel_values": torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))}
    gone = [2 + token for token in range(16) if token not in (2, 6, 10, 14)]
    expected = masked_vlm.masked_greedy(model, ids, images, [(2, torch.tensor(gone))], steps=4)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}
    stock = masked_vlm.masked_greedy(model, ids, images, [], steps=4)
    assert stock.tolist() != expected.tolist()
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with headwise.attach(model, Recipe.of("token_pruning=uniform:layer=2", keep=4)):
        assert model.generate(**inputs, **options)[:, ids.shape[1] :].tolist() == expected.tolist()
    with headwise.attach(model, Recipe.of("visionzip", keep=4)):
        assert model(**inputs).past_key_values.layers[3].keys.shape[2] == ids.shape[1] - 12
