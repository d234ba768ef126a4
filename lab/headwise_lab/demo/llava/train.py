"""Train demo-llava: ``python -m headwise_lab.demo.llava.train --out DIR [--resume]``.

A run is a pure function of the plan and the seed: interrupted and resumed, it takes the very same steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from headwise_lab.demo.llava.batches import Batch, make_batch
from headwise_lab.demo.llava.model import AuxiliaryHeads, build, grow
from headwise_lab.demo.llava.packed import image_features, question_logits
from headwise_lab.demo.llava.stages import FIRST_LAYERS, PLAN, Stage
from headwise_lab.demo.llava.tokenizer import BOS_ID, EOS_ID, PAD_ID, build_processor
from headwise_lab.demo.muon import Muon
from headwise_lab.scenes import KINDS

CHECKPOINT = "checkpoint.safetensors"
LOG_EVERY, SAVE_EVERY = 15.0, 60.0  # seconds
SMOOTHING = 0.97  # of logged averages, per step
ADAM_SHARE = 0.6  # AdamW's learning rate as a share of Muon's


class Run:
    """A training run: model, optimizers, and how far it has come."""

    def __init__(self, plan: Sequence[Stage], *, seed: int, dtype: torch.dtype) -> None:
        torch.manual_seed(seed)  # for what nn.Linear draws
        self.plan, self.dtype = plan, dtype
        self.model = build(FIRST_LAYERS, seed)
        self.heads = AuxiliaryHeads()
        self.stage_index = self.step = self.images = self.questions = 0
        self.seconds = 0.0
        self.averages: dict[str, float] = {}
        self.begin_stage()

    @property
    def stage(self) -> Stage:
        """The stage under way."""
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
        """Grow if the stage says so; fresh optimizers."""
        if self.stage.layers is not None:
            grow(self.model, self.stage.layers)
        self.make_optimizers()

    def make_optimizers(self) -> None:
        """Muon for the layers' matrices, AdamW for all else."""
        weights = self.named_weights()
        matrices = [w for name, w in weights.items() if ".layers." in name and w.ndim == 2]
        chosen = {id(w) for w in matrices}
        rest = [w for w in weights.values() if id(w) not in chosen]
        groups = [
            {"params": [w for w in rest if w.ndim > 1], "weight_decay": 0.01},
            {"params": [w for w in rest if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self.muon = Muon(matrices, 1e-3, weight_decay=0.02, dtype=self.dtype)
        self.adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))

    def learning_rate(self) -> float:
        """Linear from the stage's first to its last rate, after a linear warm-up."""
        first, last = self.stage.lr
        steady = first + (last - first) * self.step / self.stage.steps
        return steady * min(1.0, (self.step + 1) / self.stage.warmup)

    def take_step(self) -> None:
        """One batch, one update of every weight, and on to the next stage after a stage's last step."""
        if self.step == self.stage.steps:
            self.stage_index, self.step = self.stage_index + 1, 0
            self.begin_stage()
        lr = self.learning_rate()
        for optimizer, share in ((self.muon, 1.0), (self.adam, ADAM_SHARE)):
            for group in optimizer.param_groups:
                group["lr"] = lr * share
        batch = make_batch(self.stage, self.step)
        self.loss(batch).backward()  # type: ignore[no-untyped-call]
        weights = list(self.named_weights().values())
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.muon.step()
        self.adam.step()
        for weight in weights:
            weight.grad = None
        self.step += 1
        self.images += self.stage.batch
        self.questions += batch.answers.numel()

    def loss(self, batch: Batch) -> Tensor:
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
        """Fold a value into the running average of that name."""
        before = self.averages.get(name, value)
        self.averages[name] = SMOOTHING * before + (1 - SMOOTHING) * value

    def line(self) -> str:
        """The state of the run in one line."""
        averages = " ".join(f"{name} {value:.3f}" for name, value in self.averages.items())
        return (
            f"{self.stage.name} {self.step}/{self.stage.steps} {self.seconds:.0f} s, images {self.images}, "
            f"questions {self.questions}, lr {self.learning_rate():.5f} | {averages}"
        )

    def save(self, path: Path) -> None:
        """Write everything needed to go on, in one file that is replaced at once."""
        weights = self.named_weights()
        tensors = {f"weight/{name}": w.detach() for name, w in weights.items()}
        for label, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for name, w in weights.items():
                for key, value in optimizer.state.get(w, {}).items():
                    tensors[f"{label}/{key}/{name}"] = value
        progress = {key: getattr(self, key) for key in PROGRESS}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Take up what ``save`` wrote."""
        with safe_open(path, framework="pt") as stored:
            for key, value in json.loads(stored.metadata()["progress"]).items():
                setattr(self, key, value)
            for stage in self.plan[1 : self.stage_index + 1]:
                if stage.layers is not None:
                    grow(self.model, stage.layers)
            self.make_optimizers()
            weights = self.named_weights()
            by_label = {"muon": self.muon, "adam": self.adam}
            with torch.no_grad():
                for entry in stored.keys():  # noqa: SIM118 (not a dict)
                    label, _, name = entry.partition("/")
                    tensor = stored.get_tensor(entry)
                    if label == "weight":
                        weights[name].copy_(tensor)
                    else:
                        key, _, name = name.partition("/")
                        by_label[label].state[weights[name]][key] = tensor


PROGRESS = ("stage_index", "step", "images", "questions", "seconds", "averages")


def train(
    plan: Sequence[Stage],
    out: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    resume: bool = False,
    stop_after: int | None = None,
) -> Run:
    """Follow the plan, saving to ``out`` every minute; ``stop_after`` ends the run early, after that many steps."""
    run = Run(plan, seed=seed, dtype=dtype)
    checkpoint = out / CHECKPOINT
    if resume and checkpoint.exists():
        run.load(checkpoint)
    logged = saved = time.monotonic()
    taken = 0
    while not run.done and taken != stop_after:
        before = time.monotonic()
        run.take_step()
        taken += 1
        now = time.monotonic()
        run.seconds += now - before
        if now - logged > LOG_EVERY:
            logged = now
            print(run.line(), flush=True)
        if now - saved > SAVE_EVERY:
            saved = now
            run.save(checkpoint)
    run.save(checkpoint)
    print(run.line(), flush=True)
    return run


def export(model: Any, folder: Path) -> None:
    """Write the model in float16 with its processor, ready for ``from_pretrained``."""
    from transformers import GenerationConfig

    half = copy.deepcopy(model).half()
    half.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, max_new_tokens=8
    )
    half.save_pretrained(folder)
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
    dtype = getattr(torch, options.dtype)
    run = train(PLAN, options.out, seed=options.seed, dtype=dtype, resume=options.resume)
    export(run.model, options.out / "model")


if __name__ == "__main__":
    main()
