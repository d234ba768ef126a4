"""A language model with KV eviction for lm-eval (0.4): ``--model headwise``.

lm-eval has no plugins for models, so importing this module registers the name. ``headwise-lm-eval`` imports it and runs
lm-eval's own command line. Python code imports it and calls ``lm_eval.simple_evaluate(model="headwise")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lm_eval.models  # noqa: F401 - lm-eval registers its own models only where no other is there already
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from headwise_lab.cost.environment import hardware, versions
from headwise_lab.engines import NAME
from headwise_lab.engines.arguments import Arguments, alone
from headwise_lab.engines.generating import batched, wishes_of
from headwise_lab.engines.reading import Pair, Reader
from headwise_lab.kv.measure import description
from headwise_lab.models.load import load_language_model

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


NEW_TOKENS = 256  # where a task gives no number; as in lm-eval's own models
LONGEST = 2048  # tokens of a prompt where the model's configuration has no maximum; as in lm-eval's own models


@register_model(NAME)
class HeadwiseLM(TemplateLM):  # type: ignore[misc]
    """Scores and continues texts under the recipe; model arguments are those of headwise_lab.engines.arguments."""

    def __init__(self, **given: object) -> None:
        super().__init__()
        alone()
        asked = Arguments.of(given)
        loaded = load_language_model(
            asked.pretrained, dtype=asked.dtype, device=asked.device, attention=asked.attention
        )
        self._reader = Reader(loaded, asked.make_recipe())
        self.tokenizer = loaded.tokenizer
        self.batch_size = asked.batch_size
        own = getattr(loaded.model.config, "max_position_embeddings", None)
        self.max_length: int = asked.max_length or own or LONGEST
        self._device = torch.device(loaded.device)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the beginning-of-text token, or else the end-of-text token."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        """A name for the tokenizer; lm-eval keeps one request cache for each name."""
        return self._reader.loaded.source.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Token ids of a text; no second beginning-of-text token where the text already begins with one."""
        if add_special_tokens is None:
            begin = self.tokenizer.bos_token
            add_special_tokens = not (begin and string.startswith(begin))
        ids: list[int] = self.tokenizer(string, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as text, by the model's template."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """Log-probabilities of continuations; the longest are read first, so that memory runs out early or never."""
        pairs = [self._fitting(context, rest) for _, context, rest in requests]
        order = sorted(range(len(pairs)), key=lambda row: -sum(map(len, pairs[row])))
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(pairs), desc="headwise", disable=disable_tqdm) as bar:
            for first in range(0, len(order), self.batch_size):
                rows = order[first : first + self.batch_size]
                scored = self._reader.continuations([pairs[row] for row in rows])
                for row, (nll, right) in zip(rows, scored, strict=True):
                    found[row] = -nll, right
                    self.cache_hook.add_partial("loglikelihood", requests[row][0], found[row])
                bar.update(len(rows))
        return [found[row] for row in range(len(pairs))]

    def _fitting(self, context: list[int], rest: list[int]) -> Pair:
        """Context and continuation, cut at the beginning to the model's maximum; at least one token is context."""
        kept = rest[-self.max_length :]
        return context[-max(1, self.max_length + 1 - len(kept)) :], kept

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probabilities of whole texts, read in windows of ``max_length`` tokens, each with an empty cache.

        With a ``max_length`` above the model's own maximum, a streaming strategy reads a text in one long window.
        """
        found = []
        for request in tqdm(requests, desc="headwise", disable=disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = map(make_disjoint_window, windows)
            found.append(-sum(self._reader.text([*context, *rest], len(rest)) for context, rest in pairs))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first stop text; greedy, unless a task asks for sampling."""
        wishes = wishes_of(requests, NEW_TOKENS)
        prompts = [
            self.tok_encode(request.args[0])[-max(1, self.max_length - wish.most) :]
            for request, wish in zip(requests, wishes, strict=True)
        ]
        found: dict[int, str] = {}
        with tqdm(total=len(prompts), desc="headwise", disable=disable_tqdm) as bar:
            for rows in batched(wishes, self.batch_size, [len(prompt) for prompt in prompts]):
                texts = self._reader.answers([prompts[row] for row in rows], wishes[rows[0]])
                for row, text in zip(rows, texts, strict=True):
                    found[row] = text
                    self.cache_hook.add_partial("generate_until", requests[row].args, text)
                bar.update(len(rows))
        return [found[row] for row in range(len(prompts))]

    def get_model_info(self) -> dict[str, object]:
        """What lm-eval adds to its result file: all that our records say of a model."""
        loaded, recipe = self._reader.loaded, self._reader.recipe
        about = {**description(loaded, recipe), "recipe": recipe.name, "settings": recipe.settings}
        return {NAME: {**about, "versions": versions(), "hardware": hardware(loaded.device).to_json()}}
