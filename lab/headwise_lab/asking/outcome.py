"""Everything that came of asking: the answers, where they come from, and what to know when reading them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from headwise_lab.asking.answering import ROUNDS, Answered, Ready
from headwise_lab.asking.request import Asked
from headwise_lab.asking.views import seen
from headwise_lab.benchmarks.pictures import remarks
from headwise_lab.models.load import LoadedModel
from headwise_lab.report.kept_tokens.pictures import Shown

TIMES = (
    f"Prefill: the median of {ROUNDS} forwards of this one prompt, on this machine, one run, not a benchmark."
    " KV bytes: what the cache holds after the prefill."
)


@attrs.frozen(eq=False, kw_only=True)
class Outcome:
    """``answers``: the model as it is first, then every recipe. ``view``: where kept tokens lie, None where unknown."""

    asked: Asked
    loaded: LoadedModel
    visual: int
    length: int
    answers: Sequence[Answered]
    view: Shown | None
    notes: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """One object for JSON. A kept token of a ``grid`` [rows, columns] lies at divmod(token, columns)."""
        loaded, about = self.loaded, self.asked
        head = {
            "model": loaded.name,
            **{name: getattr(loaded, name) for name in ("weights", "dtype", "attention", "device")},
            **({"prompt": about.text} if about.image is None else {"image": str(about.image), "question": about.text}),
            "prompt_tokens": self.length,
            "visual_tokens": self.visual,
            "grid": None if self.view is None else list(self.view.tile.grid),
        }
        answers = [{**attrs.asdict(one), "processed_mean": one.average} for one in self.answers]
        return {**head, "answers": answers, "notes": list(self.notes)}


def outcome(asked: Asked, model: Ready, answers: Sequence[Answered]) -> Outcome:
    """What came of it, with the sentences a reader needs."""
    view, notes = seen(asked, model)
    notes += [] if asked.image is None else remarks(asked.image)
    merging = [one.name for one in answers if one.merges and one.refused is None]
    if merging:
        notes.append(f"{', '.join(merging)}: tokens that were dropped are partly merged into those that were kept.")
    trained = getattr(model.loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if trained is not None and model.length > trained:
        notes.append(
            f"The prompt has {model.length} tokens, and {model.loaded.name} was trained on {trained} at most, so the"
            " answer with all of them may be useless."
        )
    return Outcome(
        asked=asked,
        loaded=model.loaded,
        visual=model.visual,
        length=model.length,
        answers=answers,
        view=view,
        notes=(*notes, TIMES),
    )
