"""The demo model's phrase-level tokenizer, its processor, and the prompt that both expect."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from headwise_lab.scenes.world import COLORS, DIGITS, PATCH, QUADRANTS, SHAPES, SIZE, WORDS

if TYPE_CHECKING:
    from transformers import ProcessorMixin


PAD, BOS, EOS, UNKNOWN, IMAGE = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD_ID, BOS_ID, EOS_ID, UNKNOWN_ID, IMAGE_ID = range(5)
USER, ASSISTANT = "USER:", "ASSISTANT:"
SUFFIX = "Answer the question using a single word or phrase."
PHRASES = (
    "Is there a",
    "in the image",
    "?",
    "What color",
    "is the",
    "What shape is the",
    "object",
    "What",
    "word",
    "digit",
    "is written",
    "How many",
    "objects",
    "are in the image",
    "Where is the",
    "Is the",
    "object left of the",
    "object above the",
)
VOCABULARY = (
    *SPECIAL,
    USER,
    ASSISTANT,
    SUFFIX,
    *PHRASES,
    *COLORS,
    *SHAPES,
    *DIGITS,
    *WORDS,
    *QUADRANTS,
    "yes",
    "no",
)
QUESTION_TOKENS = 7  # five of the question, the suffix, ASSISTANT:
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.role | upper }}: "
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}"
    "{% if not loop.last or add_generation_prompt %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def prompt(question: str) -> str:
    """The text the model was trained on, for one picture and one question."""
    return f"{USER} {IMAGE}\n{question}\n{SUFFIX} {ASSISTANT}"


def build_tokenizer() -> Tokenizer:
    """Tokens are whole phrases, of which the longest match is taken; other words are <unk>; white space is skipped."""
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    plain = sorted(VOCABULARY[len(SPECIAL) :], key=len, reverse=True)
    pattern = "|".join([*map(_whole, plain), r"\w+", r"[^\w\s]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def _whole(phrase: str) -> str:
    """A pattern for the phrase that does not end inside a word."""
    escaped = "".join(f"\\{c}" if c in ".?-" else c for c in phrase)
    return escaped + (r"(?!\w)" if phrase[-1].isalnum() else "")


@cache
def _tokenizer() -> Tokenizer:
    return build_tokenizer()


@cache
def question_ids(question: str) -> tuple[int, ...]:
    """The seven tokens that follow the image."""
    ids = tuple(_tokenizer().encode(f"{question}\n{SUFFIX} {ASSISTANT}", add_special_tokens=False).ids)
    if len(ids) != QUESTION_TOKENS or UNKNOWN_ID in ids:
        raise ValueError(f"{question!r} is not five known tokens: {ids}")
    return ids


@cache
def answer_id(answer: str) -> int:
    """The token of a one-word answer."""
    return VOCABULARY.index(answer)


def build_processor() -> ProcessorMixin:
    """A LlavaProcessor: CLIP normalisation of 144 x 144 pictures, 144 image tokens, the prompt as chat template."""
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_convert_rgb=True
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
