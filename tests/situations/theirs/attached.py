"""A pytest plugin for transformers' own tests: every model of our families has a recipe attached that keeps everything.

Runs where transformers' tests are, beside them; with HEADWISE_ATTACH=0 nothing is attached.
"""

from __future__ import annotations

import functools
import os
import weakref
from contextlib import ExitStack, suppress

import pytest
import transformers

import headwise

CLASSES = (
    "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
)  # fmt: skip
_stack = ExitStack()
_attached = weakref.WeakSet()


def _keeps_everything(model) -> headwise.Recipe:
    """Caches that evict, with windows that no test outgrows; and a stage that keeps every visual token."""
    from headwise.attachment import adapter_for

    texts, visual = ["window:window=1000000"], adapter_for(model).geometry.visual_tokens
    if not visual:
        return headwise.Recipe.of(*texts)
    return headwise.Recipe.of("uniform:layer=1", *texts, keep=visual)


def _attach(model) -> None:
    if type(model).__name__ in CLASSES and model not in _attached:
        _attached.add(model)
        _stack.enter_context(headwise.attach(model, _keeps_everything(model)))


def pytest_configure() -> None:
    """Attach to whatever is made from now on."""
    if os.environ.get("HEADWISE_ATTACH") != "1":
        return
    for name in CLASSES:
        made_by = getattr(transformers, name)
        original = made_by.__init__

        @functools.wraps(original)
        def made(self, *args, original=original, **kwargs):
            original(self, *args, **kwargs)
            _attach(self)

        made_by.__init__ = made


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Models go with their test."""
    global _stack  # noqa: PLW0603
    with suppress(headwise.HeadwiseError):
        _stack.close()
    _stack = ExitStack()
