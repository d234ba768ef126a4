"""Training batches. A batch depends only on the stage's seed and the step, so a resumed run needs no other state."""

from __future__ import annotations

from random import Random

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwise_lab.demo.llava.stages import TrainingStage
from headwise_lab.demo.llava.tokenizer import QUESTION_TOKENS, answer_id, question_ids
from headwise_lab.scenes import KINDS, Scene, SceneQuestion, ask, draw_batch, sample_scene

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, as in the shipped processor
STD = (0.26862954, 0.26130258, 0.27577711)


@attrs.frozen(eq=False)
class TrainingBatch:
    """The pictures of one step, and their questions."""

    pixels: Tensor  # (batch, 3, height, width), normalised
    sprites: Tensor  # (batch, tokens)
    questions: Tensor  # (batch, questions, 7)
    answers: Tensor  # (batch, questions)
    kinds: Tensor  # (batch, questions), index into KINDS


def make_batch(stage: TrainingStage, step: int) -> TrainingBatch:
    """The batch of one step, counted from 0."""
    rng = Random(f"demo-llava {stage.seed} {step}")
    start, end = stage.high
    high = max(stage.low, round(start + (end - start) * step / stage.steps))
    scenes = [sample_scene(rng, stage.low, high) for _ in range(stage.batch)]
    asked = [ask_mix(stage, scene, rng) for scene in scenes]
    sprites = np.array([scene.sprites for scene in scenes], dtype=np.int64)
    shape = (stage.batch, sum(stage.mix.values()))
    return TrainingBatch(
        normalize(draw_batch(sprites, np.random.default_rng([stage.seed, step]))),
        torch.from_numpy(sprites),
        torch.tensor([[question_ids(q.text) for q in row] for row in asked]).view(*shape, QUESTION_TOKENS),
        torch.tensor([[answer_id(q.answer) for q in row] for row in asked]).view(shape),
        torch.tensor([[KINDS.index(q.kind) for q in row] for row in asked]).view(shape),
    )


def ask_mix(stage: TrainingStage, scene: Scene, rng: Random) -> list[SceneQuestion]:
    """The stage's mix of questions about one scene; "exist" replaces a kind that the scene does not allow."""
    questions = []
    for kind, count in stage.mix.items():
        for _ in range(count):
            question = ask(kind, scene, rng)
            while question is None:
                question = ask("exist", scene, rng)
            questions.append(question)
    return questions


def normalize(pictures: NDArray[np.uint8]) -> Tensor:
    """Pixel values (batch, 3, height, width) of uint8 (batch, height, width, 3), equal to the processor's."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous()
