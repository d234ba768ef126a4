"""Training a demo model in steps that can be resumed: Muon for its layers' matrices, AdamW for everything else."""

from __future__ import annotations

import copy
import json
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINT = "checkpoint.safetensors"
LOG_EVERY, SAVE_EVERY = 15.0, 60.0  # seconds
ADAM_SHARE = 0.6  # AdamW's learning rate as a share of Muon's


class TrainingRun(ABC):
    """A training run: a model, its optimizers, and the steps done so far."""

    progress: ClassVar[tuple[str, ...]]
    """Names of the attributes that a checkpoint saves in addition to weights and optimizers."""
    step = 0
    seconds = 0.0
    optimizers: dict[str, torch.optim.Optimizer]

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the plan's last step has been taken."""

    @abstractmethod
    def named_weights(self) -> dict[str, Tensor]:
        """Everything that learns, by name."""

    @abstractmethod
    def learning_rate(self) -> float:
        """Muon's learning rate at this step."""

    @abstractmethod
    def make_optimizers(self) -> None:
        """Make new optimizers for all weights."""

    @abstractmethod
    def take_step(self) -> None:
        """One batch, one update of every weight."""

    @abstractmethod
    def line(self) -> str:
        """The state of the run in one line."""

    def optimize(self, *, muon_decay: float, adam_decay: float, betas: tuple[float, float]) -> None:
        """Muon for the layers' matrices, AdamW for everything else; their steps are about equally large (Liu 2025)."""
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(f"training needs torch 2.9 or newer, which has Muon; this is {torch.__version__}")
        weights = self.named_weights()
        matrices = {name: weight for name, weight in weights.items() if ".layers." in name and weight.ndim == 2}
        rest = [weight for name, weight in weights.items() if name not in matrices]
        groups = [
            {"params": [weight for weight in rest if weight.ndim > 1], "weight_decay": adam_decay},
            {"params": [weight for weight in rest if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        muon = torch.optim.Muon(list(matrices.values()), 1e-3, weight_decay=muon_decay, adjust_lr_fn="match_rms_adamw")
        self.optimizers = {"muon": muon, "adam": torch.optim.AdamW(groups, lr=1e-3, betas=betas)}

    def update(self, loss: Tensor) -> None:
        """Change all weights by one step along the gradient of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.named_weights().values()), 1.0)
        for label, optimizer in self.optimizers.items():
            lr = self.learning_rate() * (ADAM_SHARE if label == "adam" else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1

    def save(self, path: Path) -> None:
        """Write a checkpoint with everything that resuming needs. The file is complete at any time."""
        weights = self.named_weights()
        tensors = {f"weight/{name}": weight.detach() for name, weight in weights.items()}
        for label, optimizer in self.optimizers.items():
            for name, weight in weights.items():
                for key, value in optimizer.state.get(weight, {}).items():
                    tensors[f"{label}/{key}/{name}"] = value
        progress = {key: getattr(self, key) for key in self.progress}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint that ``save`` wrote."""
        with safe_open(path, framework="pt") as stored, torch.no_grad():
            for key, value in progress_in(path).items():
                setattr(self, key, value)
            self.make_optimizers()
            weights = self.named_weights()
            for entry in stored.keys():  # noqa: SIM118 (not a dict)
                label, _, name = entry.partition("/")
                if label == "weight":
                    weights[name].copy_(stored.get_tensor(entry))
                else:
                    key, _, name = name.partition("/")
                    self.optimizers[label].state[weights[name]][key] = stored.get_tensor(entry)


Run = TypeVar("Run", bound=TrainingRun)


def progress_in(path: Path) -> dict[str, Any]:
    """The ``progress`` attributes that a checkpoint holds."""
    with safe_open(path, framework="pt") as stored:
        progress: dict[str, Any] = json.loads(stored.metadata()["progress"])
    return progress


def train(run: Run, out: Path, *, resume: bool = False, stop_after: int | None = None) -> Run:
    """Take a run to its end and save it to ``out`` every minute; ``stop_after`` ends it early, after so many steps."""
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


def export(model: PreTrainedModel, folder: Path, **generation: object) -> None:
    """Write a model in float16, ready for ``from_pretrained``, with its generation settings."""
    from transformers import GenerationConfig

    half = copy.deepcopy(model).half()
    half.generation_config = GenerationConfig(do_sample=False, **generation)
    half.save_pretrained(folder)
