"""CLIP's view of picture and question: how close patches and words are in the space that CLIP put both into.

A LLaVA-like model keeps CLIP's vision tower and drops the rest. What is needed of the rest (text tower, the vision
tower's last norm, the two projections) comes from a CLIP folder; patch features come from the model's own tower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoTokenizer, CLIPModel

from headwise.errors import ModelError
from headwise_adapters.quiet import without_progress

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_INSTEAD = "give a folder written by CLIPModel.save_pretrained with its tokenizer, or relevance=embeddings"
_NO_TOKENIZER = (
    "CLIP reads the question as text, and the tokenizer of this model cannot be loaded: {}; put tokenizer files into"
    " the model's folder, or give relevance=embeddings"
)
_TOKENIZER = ("tokenizer.json", "vocab.json")
_ANSWER = re.compile(r"(\bassistant\s*:|\[/INST\]|(?m:^)assistant)\s*\Z", re.IGNORECASE)
"""What a chat template puts behind the question: LLaVA's ``ASSISTANT:``, Mistral's ``[/INST]``, a line of its own."""


class _Towerless(CLIPModel):  # type: ignore[misc]  # transformers is not typed
    """CLIP without the layers of its vision tower, which nobody runs here."""

    _keys_to_ignore_on_load_unexpected = (r"vision_model\.encoder\.layers\.",)


@attrs.frozen(eq=False)
class _Clip:
    """A CLIP model with its tokenizer, in float32."""

    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def width(self) -> int:
        """Numbers of a patch feature."""
        return int(self.model.config.vision_config.hidden_size)

    def patches(self, features: Tensor) -> Tensor:
        """Unit vectors (n, p) of patch features (n, c): what CLIP does to the CLS token, done to patches."""
        return normalize(self.model.visual_projection(self.model.vision_model.post_layernorm(features)), dim=-1)

    def words(self, text: str) -> Tensor:
        """Unit vectors (m, p), one per segment of a text."""
        segments = self._segments(text)
        ends = torch.tensor([len(segment) - 1 for segment in segments])
        padded = pad_sequence(segments, batch_first=True)  # behind the end, where a causal tower does not look
        states = self.model.text_model(input_ids=padded.to(self.model.device)).last_hidden_state
        return normalize(self.model.text_projection(states[torch.arange(len(segments)), ends]), dim=-1)

    def _segments(self, text: str) -> list[Tensor]:
        """Token ids of a text in pieces that the tower takes, each with a start and an end of its own.

        The end is where CLIP reads off what a text means: a piece without one has no meaning.
        """
        ids = self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        size = self.model.config.text_config.max_position_embeddings - 2
        pieces = [ids[start : start + size] for start in range(0, max(1, len(ids)), size)]
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [torch.tensor([first, *piece, last]) for piece in pieces]


class ClipRelevance:
    """Cosines of patches with questions by CLIP models, each loaded once per device."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, torch.device], _Clip] = {}

    @torch.no_grad()
    def similarity(self, folder: str, features: Sequence[Tensor], texts: Sequence[str]) -> list[Tensor]:
        """Cosine float32 (n,) of each picture's patch features (n, c) with its text, averaged over segments of it.

        ``features``: output of the vision layer that the model reads, CLS left out. A text that is longer than the text
        tower takes is cut into segments. Raises ModelError where the folder has no such CLIP model.
        """
        found: list[Tensor] = []
        known: dict[tuple[str, torch.device], Tensor] = {}
        for patches, text in zip(features, texts, strict=True):
            clip = self._clip(folder, patches.device)
            if patches.shape[-1] != clip.width:
                raise ModelError(
                    f"the CLIP model in {folder} knows patch features of {clip.width} numbers, and this model's vision"
                    f" tower gives {patches.shape[-1]}; give the folder of the CLIP model that the tower comes from"
                )
            if (text, patches.device) not in known:
                known[text, patches.device] = clip.words(text)
            found.append((clip.patches(patches.float()) @ known[text, patches.device].T).mean(dim=-1))
        return found

    def _clip(self, folder: str, device: torch.device) -> _Clip:
        if (folder, device) not in self._loaded:
            self._loaded[folder, device] = _load(folder, device)
        return self._loaded[folder, device]


def _load(folder: str, device: torch.device) -> _Clip:
    """The CLIP model in a folder; raises ModelError where it is not complete or cannot be loaded."""
    if not has_text_tower(Path(folder)):
        raise ModelError(f"{folder} has no CLIP model with text tower, tokenizer and safetensors; {_INSTEAD}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.vision_config.num_hidden_layers = 0
        with without_progress():
            model, loading = _Towerless.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # broken files, wrong shapes: each library has its own classes
        raise ModelError(f"the CLIP model in {folder} cannot be loaded: {_line(error)}; {_INSTEAD}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(f"the CLIP model in {folder} lacks {len(missing)} tensors, such as {missing[0]}; {_INSTEAD}")
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no start or end token; {_INSTEAD}")
    return _Clip(model.to(device).eval(), tokenizer)


def has_text_tower(folder: Path) -> bool:
    """Whether a folder holds all of a CLIP model: text tower and vision tower, weights in safetensors, tokenizer."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # no config, not a config, an unheard-of model: there is no CLIP model here
        return False
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER)
    return config.model_type == "clip" and any(folder.glob("*.safetensors")) and has_tokenizer


def find(config: PreTrainedConfig) -> str | None:
    """The folder of the CLIP model that a model's config names as the origin of its vision tower, if it is complete.

    A hub id is looked up among what has been downloaded; nothing is fetched.
    """
    vision = getattr(config, "vision_config", None)
    for name in (getattr(vision, "name_or_path", None), getattr(config, "mm_vision_tower", None)):
        folder = _local(name) if isinstance(name, str) and name else None
        if folder and has_text_tower(folder):
            return str(folder)
    return None


def _local(name: str) -> Path | None:
    """The folder a name stands for, on disk or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).is_dir():
        return Path(name)
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path that is not there, for example
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, from the folder it was loaded from; raises ModelError where there is none."""
    folder = model.config.name_or_path
    if not folder:
        raise ModelError(_NO_TOKENIZER.format("it was not loaded from a folder"))
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # missing or broken files: each library has its own classes
        raise ModelError(_NO_TOKENIZER.format(_line(error))) from error


def questions(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], image_token: int) -> list[str]:
    """The question of each prompt, given as token ids: the text behind its last image, or all text if there is none.

    Special tokens and the marker in front of the answer are left out.
    """
    return [_question(tokenizer, list(map(int, row)), image_token) for row in rows]


def _question(tokenizer: PreTrainedTokenizerBase, row: list[int], image_token: int) -> str:
    behind = row[::-1].index(image_token) if image_token in row else len(row)
    text = _text(tokenizer, row[len(row) - behind :])
    return text or _text(tokenizer, [token for token in row if token != image_token])


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Text between special tokens, a line for each stretch, because a role's name may stand between two of them."""
    special = set(tokenizer.all_special_ids)
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    stretches: list[list[int]] = [[]]
    for token in ids:
        stretches.append([]) if token in special else stretches[-1].append(token)
    lines = [tokenizer.decode(stretch).strip() for stretch in stretches if stretch]
    return _ANSWER.sub("", "\n".join(filter(None, lines))).strip()


def _line(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
