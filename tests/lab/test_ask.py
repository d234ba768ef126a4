"""``headwise ask``: answers are those of transformers, what is drawn is what was kept, and refusals write nothing."""

from __future__ import annotations

import base64
import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.image_utils import load_image

import headwise
from headwise.cli import main
from headwise.errors import ContractError
from headwise_lab.asking import answering, views
from headwise_lab.asking.terminal import half_blocks, shows_pictures
from headwise_lab.benchmarks.pictures import remarks, rgb
from headwise_lab.models import shipped
from headwise_lab.scenes import held_out
from headwise_lab.terminal import Terminal
from headwise_lab.trial.run import observer

CELL, SIDE = 12, 12
RECIPES = ["fastv", "cdpruner"]
FIELDS = {
    *("name", "strategies", "budget", "answer", "kept", "processed", "processed_mean", "prefill_ms", "kv_bytes"),
    *("kv_bytes_end", "entries", "entries_end", "merges", "refused", "stages"),
}
PROMPT = "In the beginning God created the heaven and the earth. And the earth was"
STREAMING, SNAPKV = "streaming:sinks=4,window=12", "snapkv:budget=8"
HOSTILE = '<script>alert("1")</script> \x1b[31m \u202e <img src=http://e.example/x> $x$ ?'


def told(*words):
    """Status, output and error stream of the command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["ask", *words])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def drawn():
    (example,) = held_out(seed=0, per_kind=1, kinds=["text"])
    return example


@pytest.fixture(scope="module")
def picture(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("drawn") / "word.png"
    Image.fromarray(drawn.pixels).save(path)
    return path


@pytest.fixture(scope="module")
def wide(picture):
    """The same picture between borders, which the processor cuts off."""
    path, whole = picture.with_name("wide.png"), Image.new("RGB", (204, 144), (200, 120, 40))
    with Image.open(picture) as square:
        whole.paste(square, (30, 0))
    whole.save(path)
    return path


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(shipped("demo-llava"))


@pytest.fixture(scope="module")
def inputs(drawn):
    processor = AutoProcessor.from_pretrained(shipped("demo-llava"))
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": drawn.question.text}]}
    prompt = processor.apply_chat_template([message], add_generation_prompt=True)
    return processor, processor(images=Image.fromarray(drawn.pixels), text=prompt, return_tensors="pt")


@pytest.fixture(scope="module")
def asked(wide, drawn, tmp_path_factory):
    """What the command prints and writes about a picture that is not square."""
    folder = tmp_path_factory.mktemp("asked") / "out"
    words = ["--image", str(wide), "--question", drawn.question.text, "--tokens", "48", "--out", str(folder), "--json"]
    status, out, err = told(*words, *(word for name in RECIPES for word in ("--recipe", name)))
    assert status == 0, err
    return json.loads(out), folder


def test_answers_kept_tokens_and_bytes_are_those_of_transformers_with_and_without_a_recipe(asked, model, inputs, drawn):
    found, _ = asked
    processor, tensors = inputs

    def said():
        ids = model.generate(**tensors, max_new_tokens=40, do_sample=False)
        return processor.decode(ids[0, tensors["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    unpruned, *pruned = found["answers"]
    assert unpruned["answer"] == said() == drawn.question.answer
    assert unpruned["kept"] == list(range(SIDE * SIDE))
    assert unpruned["processed"] == [144] * 12
    text = tensors["input_ids"].shape[1] - 144
    for one, name in zip(pruned, RECIPES, strict=True):
        recorder = observer("recorder")
        with headwise.attach(model, headwise.Recipe.of(name=name, tokens=48), observers=[recorder]) as attached:
            assert one["answer"] == said()
        assert one["kept"] == recorder.take()[0].kept
        assert one["processed"] == list(attached.plan.processed)
        assert one["processed_mean"] == pytest.approx(attached.plan.average)
        config = model.config.text_config
        entry = 2 * 4 * config.hidden_size // config.num_attention_heads * config.num_key_value_heads
        assert one["kv_bytes"] == entry * sum(count + text for count in one["processed"])


def test_the_json_has_every_field(asked):
    found, _ = asked
    assert [one["name"] for one in found["answers"]] == ["unpruned", *RECIPES]
    assert {key for one in found["answers"] for key in one} == FIELDS
    assert (found["model"], found["visual_tokens"], found["grid"]) == ("demo-llava", 144, [SIDE, SIDE])
    assert all(one["prefill_ms"] > 0 and one["refused"] is None for one in found["answers"])
    assert any("204 x 144" in note and "at its centre" in note for note in found["notes"])
    assert any("not a benchmark" in note for note in found["notes"])


def test_the_page_shows_the_kept_squares_as_they_are_and_the_others_faded(asked, drawn):
    found, folder = asked
    shown = [np.asarray(image).astype(int) for image in pictures_in((folder / "ask.html").read_text())]
    assert len(shown) == 3
    size = shown[0].shape[0] // SIDE  # the picture is 204 x 144, and the model sees the square from its 31st column on
    left, wide = round(30 * size / CELL), SIDE * size
    assert (shown[0][size // 2 :: size, left + size // 2 : left + wide : size] == drawn.pixels[6::CELL, 6::CELL]).all()
    for image, one in zip(shown[1:], found["answers"][1:], strict=True):
        inner = slice(size // 3, -size // 3)
        seen = (image == shown[0]).all(axis=2)[:, left : left + wide].reshape(SIDE, size, SIDE, size)
        assert np.flatnonzero(seen[:, inner, :, inner].all(axis=(1, 3))).tolist() == one["kept"]
        assert not (image == shown[0]).all(axis=2)[:, :left].any()
    with Image.open(folder / "ask.png") as picture:
        assert (picture.format, picture.width > 600) == ("PNG", True)


def pictures_in(page):
    for content in re.findall(r'src="data:image/webp;base64,([^"]+)"', page):
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            yield image.convert("RGB")


class Tags(HTMLParser):
    """Names of tags, and the addresses that the page asks for."""

    def __init__(self):
        super().__init__()
        self.names, self.sources, self.text = set(), [], ""

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def test_a_hostile_question_is_text_in_page_and_terminal_and_the_page_needs_nothing_from_outside(picture, tmp_path):
    words = ["--image", str(picture), "--question", HOSTILE, "--recipe", "tome", "--keep", "16", "--new-tokens", "3"]
    status, out, err = told(*words, "--out", str(tmp_path / "o"))
    assert status == 0, err
    page, tags = (tmp_path / "o" / "ask.html").read_text(), Tags()
    tags.feed(page)
    assert not tags.names & {"script", "link", "iframe", "object", "base", "form"}
    assert len(tags.sources) == 2
    assert all(source.startswith("data:image/webp;base64,") for source in tags.sources)
    assert "url(" not in page and "@import" not in page  # noqa: PT018
    assert '<script>alert("1")</script>' in tags.text
    for shown in (page, out):
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", shown)
    assert "▀" not in out  # no terminal
    assert "tome: tokens that were dropped are partly merged" in " ".join(out.split())


@pytest.fixture
def unloadable(monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("no model may be loaded")

    monkeypatch.setattr(answering, "load_model", loaded)
    monkeypatch.setattr(answering, "load_language_model", loaded)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "there is nothing to answer; give --image and --question"),
        (["--image", "IMAGE"], "there is no question about"),
        (["--image", "IMAGE", "--question", " "], "--question is empty"),
        (["--image", "IMAGE", "--question", "a\ud800"], "--question is no text"),
        (["--question", "Why?"], "there is nothing to answer"),
        (["--image", "IMAGE", "--question", "Why?", "--prompt", "So"], "--prompt is for a language model"),
        (["--image", "/nowhere.png", "--question", "Why?"], "/nowhere.png cannot be read: No such file"),
        (["--image", __file__, "--question", "Why?"], "is in no format that can be read"),
        (["--image", "https://e.example/a.png", "--question", "Why?"], "https://e.example/a.png is no file; download"),
        (["--image", "data:image/png;base64,AA", "--question", "Why?"], "is no file; download the picture first"),
        (["QUESTION", "--image", "IMAGE"], "2 pictures are given, and one is asked about at a time; give one --image"),
        (["QUESTION", "--picture", "png"], "--picture 'png' is not one of auto, kitty, iterm, sixel, blocks, none"),
        (["QUESTION", "--recipe", "fastv", "--tokens", "9", "--keep", "9"], "a run has one budget"),
        (["QUESTION", "--tokens", "9"], "--tokens and --keep are the budget of recipes"),
        (["QUESTION", "--recipe", "fastw", "--keep", "9"], "did you mean fastv"),
        (["QUESTION", "--strategy", "fastvv", "--keep", "9"], "did you mean fastv"),
        (["QUESTION", "--recipe", "fastv"], "fastv cannot answer: "),
        (
            ["QUESTION", "--recipe", "fastv", "--recipe", "dart", "--tokens", "5"],
            "no recipe can answer: fastv: tokens=5",
        ),
        (["QUESTION", "--model", "demo-pythia"], "demo-pythia is a language model and sees no picture"),
        (["QUESTION", "--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--prompt", "So", "--model", "demo-llava"], "demo-llava is asked about a picture"),
        (["--prompt", "So", "--recipe", "fastv"], "--recipe prunes the tokens of a picture"),
        (["--prompt", "So", "--keep", "4"], "--tokens and --keep count the tokens of a picture"),
        (["--prompt", "So", "--strategy", "streamin"], "did you mean streaming"),
        (["--prompt", "So", "--strategy", "head_windows"], "head_windows cannot answer: "),
        (["--prompt", "So", "--out", "IMAGE"], "is a file; give another"),
        (["--prompt", "So", "--out", "memory://a/x"], "is no folder of this machine"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence_before_a_model_is_loaded(
    words, wanted, picture, unloadable, tmp_path
):
    filled = []
    for word in words:
        filled += {"IMAGE": [str(picture)], "QUESTION": ["--image", str(picture), "--question", "Why?"]}.get(
            word, [word]
        )
    target = [] if "--out" in filled else ["--out", str(tmp_path / "o")]
    status, out, err = told(*filled, *target)
    assert (status, out) == (2, "")
    assert wanted in err
    assert err.startswith("headwise: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_odd_pictures_are_seen_as_transformers_opens_them_and_what_is_not_seen_is_said(picture, tmp_path, unloadable):
    """What is read is judged without a model; that answers on it are transformers' own is judged elsewhere."""
    with Image.open(picture) as stored:
        whole = stored.convert("RGB")
    clear = whole.convert("RGBA")
    clear.putalpha(Image.fromarray(np.indices((144, 144))[0].astype(np.uint8)))
    turn = Image.Exif()
    turn[0x0112] = 6
    frames = [whole.rotate(90), whole.rotate(180)]
    saved = {
        "grey.png": (whole.convert("L"), {}),
        "cmyk.tiff": (whole.convert("CMYK"), {}),
        "opaque.png": (whole.convert("RGBA"), {}),
        "clear.png": (clear, {}),
        "turned.png": (whole.rotate(90, expand=True), {"exif": turn}),
        "moving.png": (whole, {"save_all": True, "append_images": frames}),
    }
    said = {}
    for name, (image, how) in saved.items():
        image.save(tmp_path / name, **how)
        with Image.open(tmp_path / name) as stored:
            wanted = np.asarray(load_image(stored))
        assert np.array_equal(np.asarray(rgb(tmp_path / name)), wanted)
        said[name] = remarks(tmp_path / name)
    assert np.array_equal(np.asarray(rgb(tmp_path / "turned.png")), np.asarray(whole))
    assert said.pop("moving.png") == ["The picture has 3 frames; the model sees the first."]
    assert said.pop("clear.png") == [
        "The picture is transparent in parts; there the model sees the colours stored behind."
    ]
    assert not any(said.values())


def test_a_question_longer_than_the_model_was_trained_on_is_answered_with_a_note(picture):
    question = "Was steht da? 你好 " * 400
    status, out, err = told("--image", str(picture), "--question", question, "--json", "--new-tokens", "1")
    assert status == 0, err
    assert any("was trained on" in note for note in json.loads(out)["notes"])


def test_files_that_are_there_are_replaced_only_when_told_to(picture, tmp_path, unloadable):
    (tmp_path / "ask.html").write_text("mine")
    status, _, err = told("--image", str(picture), "--question", "Why?", "--out", str(tmp_path))
    assert (status, (tmp_path / "ask.html").read_text()) == (2, "mine")
    assert "--overwrite to replace it" in err


def test_a_recipe_that_cannot_run_is_a_row_with_its_reason_and_the_others_go_on(picture, drawn, tmp_path, monkeypatch):
    words = ["--image", str(picture), "--question", drawn.question.text, "--tokens", "8", "--new-tokens", "2"]
    words += ["--recipe", "fastv", "--recipe", "divprune", "--recipe", "uniform"]
    said = answering._said

    def fails(asked, one, *rest):
        if one.name == "uniform":
            raise ContractError("uniform is broken today")
        return said(asked, one, *rest)

    monkeypatch.setattr(answering, "_said", fails)
    monkeypatch.setattr(views, "made_square", lambda _: None)  # as for a family whose tokens have no known place
    status, out, _ = told(*words, "--json", "--out", str(tmp_path))
    assert status == 0
    found = json.loads(out)
    reasons = {one["name"]: one["refused"] for one in found["answers"]}
    assert reasons["unpruned"] is reasons["divprune"] is None
    assert "the smallest feasible budget is tokens=24.83" in reasons["fastv"]
    assert reasons["uniform"] == "uniform is broken today"
    assert found["grid"] is None
    assert "Where the tokens of demo-llava lie on a picture is not known, so nothing is drawn." in found["notes"]
    assert [path.name for path in tmp_path.iterdir()] == ["ask.html"]
    assert "could not run: uniform is broken today" in (tmp_path / "ask.html").read_text()
    assert told(*words[:-4])[0] == 2  # fastv alone


def test_a_prompt_is_continued_as_transformers_continues_it_and_the_page_opens(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = ["--prompt", PROMPT, "--strategy", STREAMING, "--strategy", SNAPKV, "--new-tokens", "20", "--open"]
    status, out, err = told(*words, "--json")
    assert status == 0, err
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("headwise-ask-")
    assert [path.name for path in folder.iterdir()] == ["ask.html"]
    assert opened == [(folder / "ask.html").as_uri()]
    found = json.loads(out)
    assert [one["name"] for one in found["answers"]] == ["full cache", STREAMING, SNAPKV]
    assert {key for one in found["answers"] for key in one} == FIELDS
    name = shipped("demo-pythia")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    tensors = tokenizer(PROMPT, return_tensors="pt")
    length = tensors["input_ids"].shape[1]

    def said():
        ids = model.generate(**tensors, max_new_tokens=20, do_sample=False)
        return tokenizer.decode(ids[0, length:], skip_special_tokens=True).strip()

    full, *evicting = found["answers"]
    assert full["answer"] == said()
    assert (full["entries"], full["entries_end"]) == (length, length + 19)
    for one in evicting:
        with headwise.attach(model, one["name"]), torch.inference_mode():
            assert one["answer"] == said()
        assert one["kept"] is one["processed"] is None
        assert one["kv_bytes"] < full["kv_bytes"]
    assert (evicting[0]["entries"], evicting[0]["entries_end"]) == (16, 16)
    assert evicting[1]["entries"] == 8


def test_pictures_are_half_blocks_and_only_for_a_terminal_with_colours():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    text = half_blocks(Image.fromarray(pixels))
    assert text.plain == "▀▀"
    assert [span.style.color.triplet for span in text.spans] == [(0, 1, 2), (3, 4, 5)]
    assert [span.style.bgcolor.triplet for span in text.spans] == [(6, 7, 8), (9, 10, 11)]
    utf = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert shows_pictures(Terminal(file=utf, force_terminal=True, color_system="truecolor"))
    assert not shows_pictures(Terminal(file=utf, force_terminal=True, color_system="truecolor", no_color=True))
    assert not shows_pictures(Terminal(file=utf, force_terminal=False))
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not shows_pictures(Terminal(file=ascii_only, force_terminal=True, color_system="truecolor"))


def test_a_terminal_that_shows_pictures_is_drawn_them_and_a_file_is_not(picture, monkeypatch):
    """What was written is read back: the picture as it is, and beside it what fastv kept of it."""
    words = ("--image", str(picture), "--question", "What is it?", "--recipe", "fastv", "--keep", "16")
    status, out, err = told(*words, "--picture", "kitty")
    assert (status, out) == (2, "")
    assert "--picture kitty is for a terminal, and the output is none" in err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = told(*words)
    assert status == 0, err
    parts = re.findall(r"\x1b_G[^;]*;([A-Za-z0-9+/=]*)\x1b", out)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(parts)))).convert("RGB"))
    assert sheet.shape == (360, 740, 3)
    with Image.open(picture) as whole:
        assert np.array_equal(
            sheet[:, :360], np.asarray(whole.convert("RGB").resize((360, 360), Image.Resampling.NEAREST))
        )
    inside = slice(10, 20)
    changed = (sheet[:, 380:] != sheet[:, :360]).any(axis=2).reshape(12, 30, 12, 30)[:, inside, :, inside]
    kept = json.loads(told(*words, "--json")[1])["answers"][1]["kept"]
    assert np.flatnonzero(~changed.any(axis=(1, 3))).tolist() == kept
