"""The public names: all that are promised are there, are listed, and are typed as a user's mypy sees them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import attrs

import headwise

USER = """
from pathlib import Path
from typing import assert_type

import attrs
from PIL import Image
from transformers import PreTrainedModel

import headwise


def look(model: PreTrainedModel, image: Image.Image) -> list[tuple[int, int | None, int | None]]:
    with headwise.attach(model, "fastv:layer=2", "snapkv:budget=64", keep=16, positions="keep") as attached:
        model.generate(max_new_tokens=8)
    assert_type(attached, headwise.Attachment)
    assert_type(attached.kept, tuple[headwise.KeptRow, ...])
    assert_type(attached.plan, headwise.PruningPlan)
    assert_type(attached.cache, headwise.CacheReading)
    attached.show(image, Path("other.png"), row=0).save("kept.png")
    return [(token.position, token.row, token.column) for row in attached.kept for token in row.tokens]


def stream(model: PreTrainedModel) -> int:
    recipe = headwise.Recipe.of("streaming:sinks=4,window=60")
    cache = headwise.cache(model, recipe)
    assert_type(cache, headwise.EvictingCache)
    model.generate(past_key_values=cache)
    return cache.kv_bytes() + int(cache.entries().sum()) + cache.get_seq_length()


@attrs.frozen(eq=False)
class Loudest:
    k: int = 4

    @headwise.hookimpl
    def head_count(self, scores: object) -> object:
        return scores


try:
    headwise.Recipe.of(name="fastv", tokens=48)
except headwise.HeadwiseError as error:
    print(str(error))
"""
WRONG = """
import headwise

headwise.attach(3)
headwise.Recipe.of("fastv").nothing
"""


def test_every_promised_name_is_there_and_listed():
    for name in headwise.__all__:
        assert getattr(headwise, name) is not None
    assert sorted(headwise.__all__) == sorted(set(headwise.__all__))
    assert set(headwise.__all__) <= set(dir(headwise))
    assert set(headwise._LAZY) <= set(headwise.__all__)
    for name, module in headwise._LAZY.items():
        assert getattr(import_module(f"headwise.{module}"), name) is getattr(headwise, name)
    shown = {name for name in dir(headwise) if not name.startswith("_")}
    modules = {name for name in shown if getattr(getattr(headwise, name), "__name__", "") == f"headwise.{name}"}
    assert shown - modules == set(headwise.__all__)


def test_the_records_of_the_api_show_themselves_in_one_short_line():
    recipe = headwise.Recipe.of("fastv:layer=2", "sparsity", keep=16)
    token = headwise.KeptToken(position=7, image=0, crop=0, row=1, column=2)
    assert repr(token) == "KeptToken(position=7, image=0, crop=0, row=1, column=2)"
    assert attrs.asdict(token)["column"] == 2
    assert repr(recipe) == "<recipe: fastv:layer=2, sparsity:form=l2; keep=16>"
    assert repr(headwise.Recipe.of()) == "<recipe: nothing is thrown away; everything>"


def test_a_users_file_passes_mypy_strict_and_a_wrong_one_does_not(tmp_path):
    """Against the installed package: mypy believes its types because each of its roots has a ``py.typed``."""
    for name, text in (("mine.py", USER), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = tmp_path / "mypy.ini"  # stock packages are large, and what they promise is not judged here
    config.write_text(
        "[mypy]\nstrict = true\ncache_dir = cache\n"
        + "".join(
            f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true\n"
            for name in ("torch", "transformers", "headwise_adapters", "headwise_plugins", "numpy")
        )
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "mine.py", "wrong.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in run.stdout.splitlines() if ": error:" in line]
    assert [line.partition(":")[0] for line in told] == ["wrong.py", "wrong.py"], run.stdout + run.stderr
    for root in ("headwise", "headwise_adapters", "headwise_lab"):
        assert (Path(import_module(root).__file__).parent / "py.typed").is_file()
