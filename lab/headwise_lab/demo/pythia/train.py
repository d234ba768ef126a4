"""Train demo-pythia: ``python -m headwise_lab.demo.pythia.train --text DIR --out DIR [--resume]``.

A run depends only on the texts, the plan and the seed. A run that is interrupted and resumed takes exactly the same
steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise_lab.demo import training
from headwise_lab.demo.pythia.model import Shape, build
from headwise_lab.demo.pythia.tokenizer import BOS_ID, for_transformers, learn_tokenizer
from headwise_lab.demo.training import train

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


SMOOTHING = 0.98  # weight of the old average at every step


@attrs.frozen
class TrainingPlan:
    """The model's shape, the number of steps, and the learning rate."""

    shape: Shape = attrs.field(factory=Shape)
    steps: int = 2_300
    batch: int = 4  # windows per step
    lr: float = 0.008  # Muon's, at its peak; it then falls linearly to zero
    warmup: int = 100  # steps
    weight_decay: float = 0.05


PLAN = TrainingPlan()


class Windows:
    """The texts as one row of tokens, cut into windows. Every epoch shifts the cuts and shuffles the windows."""

    def __init__(self, tokens: Tensor, length: int, seed: int) -> None:
        self.tokens, self.length, self.seed = tokens, length, seed
        self.per_epoch = len(tokens) // length - 1
        if self.per_epoch < 1:
            raise ValueError(f"the texts hold {len(tokens)} tokens, less than two windows of {length}")
        self.epoch = -1

    def window(self, index: int) -> Tensor:
        """Window ``index`` of the whole run, (length,)."""
        epoch, number = divmod(index, self.per_epoch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            self.shift = int(torch.randint(self.length, (), generator=generator))
            self.order = torch.randperm(self.per_epoch, generator=generator)
            self.epoch = epoch
        start = self.shift + int(self.order[number]) * self.length
        return self.tokens[start : start + self.length]

    def batch(self, step: int, size: int) -> Tensor:
        """The windows of one step, (size, length)."""
        return torch.stack([self.window(step * size + i) for i in range(size)])


class PythiaRun(training.TrainingRun):
    """A training run of demo-pythia."""

    progress = ("step", "seconds", "average")

    def __init__(self, plan: TrainingPlan, tokens: Tensor, *, seed: int) -> None:
        self.plan = plan
        self.windows = Windows(tokens, plan.shape.context, seed)
        self.model = build(plan.shape, seed)
        self.average: float | None = None
        self.make_optimizers()

    @property
    def done(self) -> bool:
        """Whether the plan's last step has been taken."""
        return self.step >= self.plan.steps

    def named_weights(self) -> dict[str, Tensor]:
        """Everything that learns, by name."""
        return dict(self.model.named_parameters())

    def make_optimizers(self) -> None:
        """Make new optimizers for all weights."""
        decay = self.plan.weight_decay
        self.optimize(muon_decay=decay, adam_decay=decay, betas=(0.9, 0.95))

    def learning_rate(self) -> float:
        """Linear down to zero, after a linear warm-up."""
        left = 1 - self.step / self.plan.steps
        return self.plan.lr * min(left, (self.step + 1) / self.plan.warmup)

    def take_step(self) -> None:
        """One batch, one update of every weight."""
        loss = self.loss(self.windows.batch(self.step, self.plan.batch))
        self.update(loss)
        before = loss.item() if self.average is None else self.average
        self.average = SMOOTHING * before + (1 - SMOOTHING) * loss.item()

    def loss(self, windows: Tensor) -> Tensor:
        """Mean negative log-likelihood of the windows (batch, length), each read after the beginning-of-text token."""
        inputs = windows.roll(1, dims=1)
        inputs[:, 0] = BOS_ID
        logits = self.model(input_ids=inputs, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), windows.flatten())

    def line(self) -> str:
        """The state of the run in one line."""
        plan = self.plan
        tokens = self.step * plan.batch * plan.shape.context
        rate = tokens / max(self.seconds, 1e-9)
        return (
            f"{self.step}/{plan.steps} {self.seconds:.0f} s, tokens {tokens}, {rate:.0f}/s, "
            f"lr {self.learning_rate():.5f} | loss {self.average or 0:.3f}"
        )


def read_texts(folder: Path) -> list[str]:
    """The ``.txt`` files directly inside a folder, by name."""
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise ValueError(f"{folder} holds no .txt file; headwise_lab.demo.pythia.corpus writes them")
    return [path.read_text(encoding="utf-8") for path in paths]


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All texts as one row of tokens, a beginning-of-text token before each."""
    return torch.tensor([token for text in texts for token in tokenizer.encode(text).ids])


def export(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model in float16 with its tokenizer, ready for ``from_pretrained``."""
    training.export(model, folder, bos_token_id=BOS_ID, eos_token_id=BOS_ID, pad_token_id=BOS_ID)
    for_transformers(tokenizer).save_pretrained(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train demo-pythia on a folder of texts.")
    parser.add_argument("--text", type=Path, required=True, help="folder of .txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the finished model")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument(
        "--stop-after", type=int, help="end this call after so many steps, and export the model as it is"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = read_texts(options.text)
    tokenizer = learn_tokenizer(texts)
    run = PythiaRun(PLAN, encode(tokenizer, texts), seed=options.seed)
    train(run, options.out, resume=options.resume, stop_after=options.stop_after)
    export(run.model, tokenizer, options.out / "model")


if __name__ == "__main__":
    main()
