"""How LLaVA-1.5 is asked in its authors' code, as a Hugging Face processor: tokenizer, picture, prompt (vicuna_v1).

The authors tokenise what stands before, between and after images on its own, with a tokenizer of SentencePiece that
puts a space before every text. So the text behind an image begins with a space there, and does here.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.errors import ModelError

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

IMAGE, PAD = "<image>", "<pad>"
INSTALL = "pip install sentencepiece protobuf"

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the user's questions."
)

TEMPLATE = "".join(
    (
        "{% macro told(content) %}{% if content is string %}{{ content }}{% else %}",
        "{% for part in content if part['type'] == 'image' %}<image>\n{% endfor %}",
        "{% for part in content if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}{% endmacro %}",
        "{% if messages[0]['role'] == 'system' %}{{ told(messages[0]['content']) }}",
        "{% else %}" + SYSTEM + "{% endif %} ",
        "{% for message in messages %}",
        "{% if message['role'] == 'user' %}USER: {{ told(message['content']) }} ",
        "{% elif message['role'] == 'assistant' %}ASSISTANT: {{ told(message['content']) }}</s>{% endif %}",
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    )
)
"""vicuna_v1 as a jinja template: turns joined by a space, images before the text they came with."""

# The space before a text behind an image; none where another image or nothing follows.
_BEHIND_IMAGE = rf"{IMAGE}(?!{IMAGE}|\z)"


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """The folder's Llama tokenizer with <image> and <pad> behind its own tokens.

    Raises ModelError where there is none, or only a ``tokenizer.model`` and nothing to read it with.
    """
    from tokenizers import AddedToken, Regex, normalizers
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    _readable(folder)
    stored = LlamaTokenizer.from_pretrained(folder, local_files_only=True)
    backend = stored.backend_tokenizer
    backend.normalizer = normalizers.Replace(Regex(_BEHIND_IMAGE), f"{IMAGE}▁")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=stored.bos_token,
        eos_token=stored.eos_token,
        unk_token=stored.unk_token,
        add_bos_token=True,
        add_eos_token=False,
        padding_side="left",
    )
    # normalized: <image> is looked for after the normalizer, which sees what stands behind it.
    tokenizer.add_tokens([AddedToken(IMAGE, normalized=True, special=True)], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": AddedToken(PAD, normalized=False, special=True)})
    return tokenizer


def _readable(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        return
    if not (folder / "tokenizer.model").is_file():
        raise ModelError(f"there is neither tokenizer.json nor tokenizer.model in {folder}")
    for name, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")):
        if not _installed(module):
            raise ModelError(f"reading its tokenizer.model needs {name}; run: {INSTALL}")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def picture_processor(side: int, padded: bool, tower: Path | None) -> LlavaImageProcessorPil:
    """From a picture to ``side`` x ``side`` pixels as CLIP's processor makes them, by PIL as the authors do.

    ``padded``: made square first, with borders in CLIP's mean colour. The mean and deviation are those of the tower's
    folder where it says them.
    """
    from transformers import LlavaImageProcessorPil

    return LlavaImageProcessorPil(
        do_pad=padded,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        **_colours(tower),
    )


def _colours(tower: Path | None) -> dict[str, list[float]]:
    file = tower / "preprocessor_config.json" if tower else None
    if file is None or not file.is_file():
        return {}
    told = json.loads(file.read_text(encoding="utf-8"))
    return {key: told[key] for key in ("image_mean", "image_std") if key in told}


def processor_of(
    tokenizer: PreTrainedTokenizerFast, pictures: LlavaImageProcessorPil, config: LlavaConfig
) -> LlavaProcessor:
    """The processor for a model of this ``LlavaConfig``."""
    from transformers import LlavaProcessor

    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )
