"""Train demo-llava: ``python -m headwise_lab.demo.llava.train --out DIR [--resume]``.

A run depends only on the plan and the seed. A run that is interrupted and resumed takes exactly the same steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise_lab.demo import training
from headwise_lab.demo.llava.batches import TrainingBatch, make_batch
from headwise_lab.demo.llava.model import AuxiliaryHeads, build, grow
from headwise_lab.demo.llava.packed import image_features, question_logits
from headwise_lab.demo.llava.stages import FIRST_LAYERS, PLAN, TrainingStage
from headwise_lab.demo.llava.tokenizer import BOS_ID, EOS_ID, PAD_ID, build_processor
from headwise_lab.demo.training import progress_in, train
from headwise_lab.scenes import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


SMOOTHING = 0.97  # weight of the old average at every step


class LlavaRun(training.TrainingRun):
    """A training run of demo-llava, stage by stage."""

    progress = ("stage_index", "step", "images", "questions", "seconds", "averages")

    def __init__(self, plan: Sequence[TrainingStage], *, seed: int, dtype: torch.dtype) -> None:
        torch.manual_seed(seed)  # for the initial weights of nn.Linear
        self.plan, self.dtype = plan, dtype
        self.model = build(FIRST_LAYERS, seed)
        self.heads = AuxiliaryHeads()
        self.stage_index = self.images = self.questions = 0
        self.averages: dict[str, float] = {}
        self.begin_stage()

    @property
    def stage(self) -> TrainingStage:
        """The current stage."""
        return self.plan[self.stage_index]

    @property
    def done(self) -> bool:
        """Whether the plan's last step has been taken."""
        return self.stage_index == len(self.plan) - 1 and self.step == self.stage.steps

    def named_weights(self) -> dict[str, Tensor]:
        """Everything that learns, by name."""
        both = nn.ModuleDict({"model": self.model, "heads": self.heads})
        return dict(both.named_parameters())

    def begin_stage(self) -> None:
        """Add layers if the stage says so, and make new optimizers."""
        if self.stage.layers is not None:
            grow(self.model, self.stage.layers)
        self.make_optimizers()

    def make_optimizers(self) -> None:
        """Make new optimizers for all weights."""
        self.optimize(muon_decay=0.02, adam_decay=0.01, betas=(0.9, 0.98))

    def learning_rate(self) -> float:
        """Linear from the stage's first to its last rate, after a linear warm-up."""
        first, last = self.stage.lr
        steady = first + (last - first) * self.step / self.stage.steps
        return steady * min(1.0, (self.step + 1) / self.stage.warmup)

    def take_step(self) -> None:
        """Begin the next stage if this one is done; then one batch and one update of every weight."""
        if self.step == self.stage.steps:
            self.stage_index, self.step = self.stage_index + 1, 0
            self.begin_stage()
        batch = make_batch(self.stage, self.step)
        self.update(self.loss(batch))
        self.images += self.stage.batch
        self.questions += batch.answers.numel()

    def loss(self, batch: TrainingBatch) -> Tensor:
        """The stage's weighted sum of losses; logs their averages."""
        features = image_features(self.model, batch.pixels, self.dtype)
        content, place = self.heads.losses(features, batch.sprites)
        self.note("aux", content.item())
        self.note("place", place.item())
        total = self.stage.aux * content + self.stage.place * place
        if not self.stage.mix:
            return total
        answers = batch.answers.unsqueeze(-1)  # (batch, questions, 1)
        asked = torch.cat([batch.questions, answers], dim=-1) if self.stage.stop else batch.questions
        logits = question_logits(self.model, features, asked, self.dtype)
        answer = F.cross_entropy(logits[:, :, 0].flatten(0, 1), batch.answers.flatten())
        self.note("answer", answer.item())
        self.note_accuracies(logits[:, :, 0].argmax(dim=-1) == batch.answers, batch.kinds)
        if self.stage.stop:
            ends = torch.full_like(batch.answers, EOS_ID).flatten()
            stop = F.cross_entropy(logits[:, :, 1].flatten(0, 1), ends)
            self.note("stop", stop.item())
            total = total + self.stage.stop * stop
        return total + answer

    def note_accuracies(self, right: Tensor, kinds: Tensor) -> None:
        """Log the share of right answers by kind."""
        for i, kind in enumerate(KINDS):
            mine = right[kinds == i]
            if len(mine):
                self.note(kind, mine.float().mean().item())

    def note(self, name: str, value: float) -> None:
        """Update the running average ``name`` with a value."""
        before = self.averages.get(name, value)
        self.averages[name] = SMOOTHING * before + (1 - SMOOTHING) * value

    def line(self) -> str:
        """The state of the run in one line."""
        averages = " ".join(f"{name} {value:.3f}" for name, value in self.averages.items())
        return (
            f"{self.stage.name} {self.step}/{self.stage.steps} {self.seconds:.0f} s, images {self.images}, "
            f"questions {self.questions}, lr {self.learning_rate():.5f} | {averages}"
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; the layers that its stages added are added first."""
        for stage in self.plan[1 : progress_in(path)["stage_index"] + 1]:
            if stage.layers is not None:
                grow(self.model, stage.layers)
        super().load(path)


def export(model: PreTrainedModel, folder: Path) -> None:
    """Write the model in float16 with its processor, ready for ``from_pretrained``."""
    training.export(model, folder, bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, max_new_tokens=8)
    build_processor().save_pretrained(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train demo-llava on the synthetic scenes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the finished model")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = LlavaRun(PLAN, seed=options.seed, dtype=getattr(torch, options.dtype))
    train(run, options.out, resume=options.resume)
    export(run.model, options.out / "model")


if __name__ == "__main__":
    main()
