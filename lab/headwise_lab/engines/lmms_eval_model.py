"""A vision-language model with a recipe attached, for lmms-eval (0.7): ``--model headwise``.

lmms-eval finds it by the entry point ``lmms_eval.models``. It supports ``generate_until`` and ``loglikelihood``, and
refuses tasks of several rounds in one sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from tqdm import tqdm

from headwise.attachment import attach
from headwise.errors import HeadwiseError
from headwise.registry import built, installed, only
from headwise_lab.engines.arguments import Arguments, alone
from headwise_lab.engines.asking import HarnessRequest, continuation, encode, pictures_of
from headwise_lab.engines.generating import answers, batched, dictated, wishes_of
from headwise_lab.models.load import load_model
from headwise_lab.models.placing import DTYPES
from headwise_lab.trial.run import check

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance


NEW_TOKENS = 1024  # where a task gives no number; as in lmms-eval's own models


class HeadwiseModel(lmms):  # type: ignore[misc]
    """Answers requests with the recipe attached; model arguments are those of headwise_lab.engines.arguments."""

    is_simple = True

    def __init__(self, **given: object) -> None:
        super().__init__()
        alone()
        asked = Arguments.of(given)
        self.recipe = asked.make_recipe()
        self.loaded = load_model(asked.pretrained, dtype=asked.dtype, device=asked.device, attention=asked.attention)
        self.plan = check(self.recipe, self.loaded.geometry)
        self.batch_size = asked.batch_size
        self._recorder = built(only("observers", "recorder", installed("observers")))

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return torch.device(self.loaded.device)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answers up to the first stop text; greedy, unless a task asks for sampling."""
        wishes = wishes_of(requests, NEW_TOKENS)
        found: dict[int, str] = {}
        with self._attached(found) as advance:
            for rows in batched(wishes, self.batch_size):
                tensors = encode(self.loaded, [self._asked(requests[row]) for row in rows])
                texts = answers(self.loaded.model, self.loaded.processor.tokenizer, tensors, wishes[rows[0]])
                found.update(zip(rows, (text.strip() for text in texts), strict=True))
                advance(len(rows), len(requests))
        return [found[row] for row in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """The mean loss in nats per token of each continuation, and whether it is the greedy answer.

        Despite the method's name, lmms-eval's models return losses, and lmms-eval takes the lowest for the best. Each
        pair is in a ``GenerationResult``, because lmms-eval 0.7.3 turns everything else into text.
        """
        found: list[GenerationResult] = []
        with self._attached({}) as advance:
            for first in range(0, len(requests), self.batch_size):
                batch = requests[first : first + self.batch_size]
                asked = [self._asked(request) for request in batch]
                texts = [self._target(request) for request in batch]
                rows = [continuation(self.loaded, one, text) for one, text in zip(asked, texts, strict=True)]
                tensors = encode(self.loaded, asked)
                scored = dictated(self.loaded.model, self.loaded.processor.tokenizer, tensors, rows)
                found += [GenerationResult((float(nll.mean()), right)) for nll, right in scored]
                advance(len(batch), len(requests))
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Raises HeadwiseError: each round would need the answers of the round before."""
        raise HeadwiseError(
            f"task {requests[0].args[4]} asks in several rounds, which --model headwise does not answer; leave it out"
        )

    def _asked(self, request: Instance) -> HarnessRequest:
        """The request, with the pictures that its task reads from the document."""
        text, _, visuals, doc_id, task, split = request.args
        source = f"document {doc_id} of task {task}"
        return HarnessRequest(text, pictures_of(visuals(self.task_dict[task][split][doc_id]), source), source)

    def _target(self, request: Instance) -> str:
        _, target, _, doc_id, task, split = request.args
        return target if isinstance(target, str) else str(target(self.task_dict[task][split][doc_id]))

    @contextmanager
    def _attached(self, found: dict[int, str]) -> Iterator[Callable[[int, int], None]]:
        """Attach the recipe; at the end, write speed and budget into lmms-eval's result file.

        ``found``: row -> answer, from which the speed is computed. The block gets a function, which it calls with the
        number of rows that were answered since the last call, and the number of all rows.
        """
        heads: list[int] = []
        started = time.perf_counter()
        self._recorder.clear()
        with attach(self.loaded.model, self.recipe, observers=[self._recorder]), tqdm(desc="headwise") as bar:

            def advance(rows: int, of: int) -> None:
                heads.extend(len(seen.heads) for seen in self._recorder.take().values() if seen.heads)
                bar.total = of
                bar.update(rows)

            yield advance
        seconds, tokenizer = time.perf_counter() - started, self.loaded.processor.tokenizer
        tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in found.values())
        log_metrics(seconds, tokens, tokens / seconds, additional_metrics=self._facts(heads))

    def _facts(self, heads: Sequence[int]) -> dict[str, float]:
        """The figures that our report shows beside a score, under names that begin with ``headwise_``."""
        facts = {"processed": self.plan.average, "kept": self.plan.kept, "visual": self.plan.geometry.visual_tokens}
        facts |= {"heads_of": self.loaded.geometry.heads, "dtype_bits": 8 * DTYPES[self.loaded.dtype].itemsize}
        facts |= {"heads": fmean(heads)} if heads else {}
        return {f"headwise_{name}": float(value) for name, value in facts.items()}
