"""Files as other programs write them: marks, UTF-16, CRLF, cells that look like nothing, texts that begin twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import attrs
import pytest
import torch
from tests.lab import official_files as files
from tests.lab.language_models import write_model

from headwise import DataError
from headwise.head_weights import HeadWeights
from headwise.heads import HeadProfile
from headwise_lab.benchmarks import benchmark
from headwise_lab.benchmarks.hub.writers import mmbench as mmbench_from_rows
from headwise_lab.models.load import load_language_model
from headwise_lab.sweeps.reading import toml
from headwise_lab.texts.tokens import tokens_of

TEXT = (".json", ".tsv", ".txt", ".jsonl")
WRITTEN = {
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CRLF and a mark": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "no last line feed": lambda text: text.rstrip("\n").encode(),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("name", files.WRITERS)
def test_every_benchmark_reads_files_however_they_were_written(name, how, tmp_path):
    folder = files.WRITERS[name](tmp_path / name)
    before = benchmark(name).load(folder, None)
    for path in folder.rglob("*"):
        if path.suffix in TEXT:
            path.write_bytes(WRITTEN[how](path.read_bytes().decode()))
    assert benchmark(name).load(folder, None) == before


@pytest.mark.parametrize("name", files.WRITERS)
def test_other_encodings_are_one_sentence(name, tmp_path):
    folder = files.WRITERS[name](tmp_path / name)
    for path in folder.rglob("*"):
        if path.suffix in TEXT:
            path.write_bytes(path.read_bytes() + "größer".encode("latin-1"))
    with pytest.raises(DataError, match=r"is not UTF-8 text: .+ at byte \d+$"):
        benchmark(name).load(folder, None)


def table(folder: Path, **cells: str) -> Path:
    """A table of one question about one picture, with these cells."""
    import base64

    row = {"index": "1", "question": "Which?", "hint": "", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "A",
           "category": "x", "image": base64.b64encode(files.picture()).decode()} | cells  # fmt: skip
    with (folder / "MMBench_DEV_EN.tsv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), delimiter="\t")
        writer.writeheader()
        writer.writerow(row)
    return folder


WORDS = ("None", "none", "nan", "NaN", "NA", "N/A", "null", "NULL", "0", "False", "-", " ", "inf")


@pytest.mark.parametrize("word", WORDS)
def test_words_that_look_like_nothing_are_options(word, tmp_path):
    for letter in "ABCD":
        (question,) = benchmark("mmbench").load(table(tmp_path, **{letter: word}), None)
        assert question.options == tuple(word if option == letter else option.lower() for option in "ABCD")
        assert f"\n{letter}. {word}\n" in question.text
    (question,) = benchmark("mmbench").load(table(tmp_path, hint=word, category=word), None)
    assert question.text.startswith(f"{word}\nWhich?")
    assert question.kind == word


def test_an_empty_cell_ends_the_options(tmp_path):
    for cells, options in (({"D": ""}, "abc"), ({"C": "", "D": ""}, "ab"), ({"C": ""}, "ab")):
        (question,) = benchmark("mmbench").load(table(tmp_path, **cells), None)
        assert question.options == tuple(options)
    with pytest.raises(DataError, match="expected at least the options A and B, found 1"):
        benchmark("mmbench").load(table(tmp_path, B=""), None)
    with pytest.raises(DataError, match=r"'answer' should be one of A, B, found 'D'"):
        benchmark("mmbench").load(table(tmp_path, C="", answer="D"), None)


class Rows:
    """A dataset of the hub with one row."""

    def __init__(self, **cells):
        self.row = {"index": 1, "question": "Which?", "hint": "nan", "A": "a", "B": "b", "C": "c", "D": "d",
                    "answer": "A", "category": "x", "image": {"bytes": files.picture()}} | cells  # fmt: skip

    def rows(self, *_, **__):
        yield self.row


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        ({}, ("a", "b", "c", "d")),
        ({"D": "nan"}, ("a", "b", "c")),
        ({"C": "nan", "D": "nan"}, ("a", "b")),
        ({"C": None, "D": None}, ("a", "b")),
        ({"C": "nan"}, ("a", "b", "nan", "d")),
        ({"C": "None", "D": "NA"}, ("a", "b", "None", "NA")),
        ({"A": "nan", "B": "null"}, ("nan", "null", "c", "d")),
    ],
)
def test_the_hub_spells_missing_options_at_the_end_nan_and_nothing_else(cells, options, tmp_path):
    mmbench_from_rows(Rows(**cells), tmp_path, None, name="MMBench_DEV_EN.tsv")
    (question,) = benchmark("mmbench").load(tmp_path, None)
    assert question.options == options
    assert question.text.startswith("Which?\nA. ")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = table(tmp_path) / "MMBench_DEV_EN.tsv"
    path.write_text(path.read_text().replace("hint", "question", 1))
    with pytest.raises(DataError, match=r"MMBench_DEV_EN\.tsv, line 1: the column 'question' is there twice$"):
        benchmark("mmbench").load(tmp_path, None)


@pytest.mark.parametrize("how", WRITTEN)
def test_texts_sweeps_profiles_and_weights_are_read_however_they_were_written(how, tmp_path):
    loaded = load_language_model(str(write_model(tmp_path / "m")))
    plain, other = tmp_path / "a.txt", tmp_path / "b.txt"
    plain.write_text("the words\nof the text")
    other.write_bytes(WRITTEN[how]("the words\nof the text"))
    assert torch.equal(tokens_of(loaded.tokenizer, other).ids, tokens_of(loaded.tokenizer, plain).ids)
    (tmp_path / "s.toml").write_bytes(WRITTEN[how]('title = "größer"\nlimit = 3\n'))
    assert toml(tmp_path / "s.toml") == {"title": "größer", "limit": 3}
    for kind, name in ((HeadWeights, "weights"), (HeadProfile, "profile")):
        (tmp_path / "x.json").write_bytes(WRITTEN[how](json.dumps({"model": "größer"})))
        with pytest.raises(DataError, match=rf"is not .*head {name}.* \('"):  # a key is missing, so it was read
            kind.load(tmp_path / "x.json")


@pytest.mark.parametrize("begins", [False, True])
def test_a_text_that_brings_its_beginning_along_gets_no_second_one(begins, tmp_path):
    loaded = load_language_model(str(write_model(tmp_path / "m", begins=begins)))
    start = loaded.tokenizer.bos_token
    (tmp_path / "a.txt").write_text(f"{start}the words of the text")
    (tmp_path / "b.txt").write_text("the words of the text")
    (tmp_path / "c.txt").write_text(f"the words{start} of the text")
    own, bare, inside = (tokens_of(loaded.tokenizer, tmp_path / f"{name}.txt").ids for name in "abc")
    first = loaded.tokenizer.bos_token_id
    assert (own == first).tolist() == [True, *[False] * (len(own) - 1)]
    assert torch.equal(own[1:], bare[int(begins) :])
    assert int((inside == first).sum()) == 1 + begins  # a document that ends within the text


def test_questions_are_what_they_are_in_any_copy(tmp_path):
    """Copies with marks are the same trial: nothing of the mark is asked."""
    folder = files.WRITERS["mme"](tmp_path / "mme")
    for path in folder.rglob("*.txt"):
        path.write_bytes(WRITTEN["with a mark"](path.read_text(encoding="utf-8")))
    told = [json.dumps(attrs.asdict(question), default=str) for question in benchmark("mme").load(folder, None)]
    assert not any("ufeff" in line for line in told)
