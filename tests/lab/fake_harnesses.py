"""Stand-ins for what our models import of lmms-eval 0.7.3 and lm-eval 0.4.13, with the same names and meanings.

The real ones are in test_engines_slow.py. Here are interfaces only: base classes, the containers that requests and
answers come in, and the two functions of lm-eval that cut a text into windows.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs


@attrs.define
class GenerationResult:
    """What lmms-eval hands on as it is."""

    text: Any
    token_counts: Any = None


@attrs.frozen(kw_only=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Lmms:
    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}
        self.rank, self.world_size = 0, 1


class Cached:
    """lm-eval's cache hook, which remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, Any]] = []

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self.seen.append((kind, request, answer))


class TemplateLM:
    """Tokenises requests as lm-eval does: blanks at the end of a context belong to the continuation."""

    def __init__(self) -> None:
        self.cache_hook = Cached()

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        pairs = []
        for context, continuation in (request.args for request in requests):
            if context:
                bare = context.rstrip()
                whole, read = self.tok_encode(context + continuation), self.tok_encode(bare)
                pairs.append(((context, continuation), read, whole[len(read) :]))
            else:
                ids = self.tok_encode(continuation, add_special_tokens=False)
                pairs.append(((context, continuation), [self.prefix_token_id], ids))
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)


def rolling(token_list: list[int], prefix_token: int, max_seq_len: int, context_len: int):
    """Windows of inputs and the tokens to foretell, every token foretold once; the last window is as long as others."""
    assert context_len == 1
    text = [prefix_token, *token_list]
    for first in range(0, len(token_list), max_seq_len):
        last = min(first + max_seq_len, len(token_list))
        yield text[max(0, last - max_seq_len) : last], token_list[first:last]


def disjoint(pair: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
    inputs, wanted = pair
    return inputs[: len(inputs) - len(wanted) + 1], wanted


def request(*args: Any) -> Any:
    """A request as both harnesses hand it over."""
    return SimpleNamespace(args=args)


def install(monkeypatch: Any) -> SimpleNamespace:
    """Put the modules in place for one test; ``logged`` gets what lmms-eval is told, ``models`` what is registered."""
    found = SimpleNamespace(logged=[], models={})

    def log_metrics(seconds: float, tokens: int, speed: float, additional_metrics: dict[str, float]) -> None:
        found.logged.append(additional_metrics)

    def register_model(name: str) -> Any:
        return lambda kind: found.models.setdefault(name, kind)

    modules = {
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
        "lmms_eval.models.model_utils.gen_metrics": {"log_metrics": log_metrics},
        "lm_eval.models": {},
        "lm_eval.api.model": {"TemplateLM": TemplateLM},
        "lm_eval.api.registry": {"register_model": register_model},
        "lm_eval.utils": {"get_rolling_token_windows": rolling, "make_disjoint_window": disjoint},
    }
    for name, content in modules.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            parent = ".".join(parts[:depth])
            if parent not in sys.modules or depth == len(parts):
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        vars(sys.modules[name]).update(content)
    for name in ("lmms_eval_model", "lm_eval_model"):
        monkeypatch.delitem(sys.modules, f"headwise_lab.engines.{name}", raising=False)
    return found
