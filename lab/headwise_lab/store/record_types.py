"""Records: one attrs class for each kind of record, and one for each part of it.

A record is a JSON object, one for each attempt at a trial. These classes are its schema; docs/records.md is made from
them. Fields that a newer version or another program has added are kept in ``as_read``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import attrs

from headwise.errors import HeadwiseError
from headwise.text import StrategyText
from headwise_lab.schema.json_object import LENIENT, JsonObject, own_fields
from headwise_lab.schema.wrong_values import WrongValue

N = TypeVar("N", int, float)
R = TypeVar("R", bound="Record")

NEEDLE = "needle"
"""The study whose records are of passkeys."""


def _strategies(_: object, attribute: attrs.Attribute[dict[str, str]], texts: Mapping[str, str]) -> None:
    for hook, text in texts.items():
        try:
            StrategyText.parse(text)
        except HeadwiseError as error:
            raise WrongValue(f"{attribute.name}.{hook}", str(error)) from error


def _above(least: N, *, itself: bool = False) -> Callable[[object, attrs.Attribute[N], N], None]:
    def check(_: object, attribute: attrs.Attribute[N], value: N) -> None:
        if not (value > least or (itself and value == least)):
            raise WrongValue(attribute.name, f"{value!r} is not {'at least' if itself else 'above'} {least:g}")

    return check


@attrs.frozen(kw_only=True)
class Metric(JsonObject):
    """The headline metric of a trial, in the scale of its benchmark."""

    nulls: ClassVar[frozenset[str]] = frozenset({"se"})

    value: float
    name: str | None = None
    se: float | None = None
    """Its standard error."""


@attrs.frozen(kw_only=True)
class TokenBudget(JsonObject):
    """A budget of visual tokens: what was asked for, and what followed from it."""

    given: str | None = None
    """What was asked for: ``tokens=48``, ``keep=16`` or ``everything``."""
    processed: float | None = None
    """Visual tokens that a decoder layer processes, averaged over layers."""
    kept: float | None = None
    """Visual tokens left after the last layer."""
    visual: float | None = None
    """Visual tokens before any was dropped."""
    reported: float | None = None
    """The average as the method itself counts it, where that differs from ``processed``."""


@attrs.frozen(kw_only=True)
class Heads(JsonObject):
    """The attention heads that chose tokens; empty where the plan used no heads."""

    nulls: ClassVar[frozenset[str]] = frozenset({"of", "mean", "sd"})

    of: float | None = None
    """Heads of a layer."""
    mean: float | None = None
    """Heads that chose tokens, averaged over questions."""
    sd: float | None = None
    """Their standard deviation over questions."""


@attrs.frozen(kw_only=True)
class PruningStage(JsonObject):
    """One place where visual tokens are dropped."""

    lenient: ClassVar[bool] = True

    layer: float | None = None
    """The decoder layer before which they are dropped; 0 is before the language model."""
    keep: float | None = None
    """Visual tokens left after it."""
    merged: float | None = None
    """How many of these are merged from dropped tokens."""


@attrs.frozen(kw_only=True)
class Cost(JsonObject):
    """The cost of a question, planned and measured; a figure that could not be measured is null."""

    lenient: ClassVar[bool] = True
    nulls: ClassVar[frozenset[str]] = frozenset({
        "prefill_ms", "prefill_unpruned_ms", "prefill_share", "selection_ms", "selection_share", "decode_tokens_per_s",
    })  # fmt: skip

    flops_visual: float | None = None
    """Planned multiply-adds of the prefill, for the visual tokens alone."""
    flops_total: float | None = None
    """Planned multiply-adds of the prefill, for visual and text tokens."""
    flops_formula: str | None = None
    """The formula of both: ``gated`` or ``fastv``."""
    text_tokens: float | None = None
    """Tokens of a prompt that are not visual, on average."""
    kv_bytes: float | None = None
    """Planned bytes of the cache after the prefill."""
    prefill_ms: float | None = None
    """Time of the prefill of a question, vision tower included, in milliseconds."""
    prefill_unpruned_ms: float | None = None
    """The same for the unpruned model."""
    prefill_share: float | None = None
    """``prefill_ms`` / ``prefill_unpruned_ms``, both measured in turns."""
    prefill_share_low: float | None = None
    """The lowest such ratio of the batches that were timed."""
    prefill_share_high: float | None = None
    """The highest one."""
    selection_ms: float | None = None
    """The part of ``prefill_ms`` that choosing tokens takes."""
    selection_share: float | None = None
    """``selection_ms`` / ``prefill_ms``."""
    decode_tokens_per_s: float | None = None
    """Tokens per second while decoding."""
    flops_counted: float | None = None
    """Counted multiply-adds of the whole prefill."""
    flops_counted_unpruned: float | None = None
    """The same for the unpruned model."""
    flops_counted_layers: float | None = None
    """The part of ``flops_counted`` in the decoder layers."""
    flops_counted_selection: float | None = None
    """The part of ``flops_counted`` that chooses tokens."""
    kv_bytes_stored: float | None = None
    """Counted bytes of the cache after the prefill."""
    peak_bytes: float | None = None
    """Peak memory during the prefill of a batch."""
    peak_grown_bytes: float | None = None
    """By how much that exceeds the memory in use before."""
    peak_source: str | None = None
    """Where the peak was read: ``process memory`` or the allocator of a GPU."""
    batch: int | str | None = None
    """Questions per batch."""


@attrs.frozen(kw_only=True)
class WatchedCost(Cost):
    """The same for a trial whose prefill was measured: counted figures that could not be had are null, too."""

    nulls: ClassVar[frozenset[str]] = Cost.nulls | {
        "flops_counted", "flops_counted_unpruned", "flops_counted_layers", "flops_counted_selection",
        "kv_bytes_stored", "peak_bytes", "peak_grown_bytes", "peak_source",
    }  # fmt: skip


@attrs.frozen(kw_only=True)
class Overlap(JsonObject):
    """Kept tokens compared with the tokens inside the boxes that questions are about, averaged over questions."""

    lenient: ClassVar[bool] = True

    recall: float | None = None
    precision: float | None = None
    iou: float | None = None
    """Intersection over union."""
    lift: float | None = None
    """Recall divided by the recall of keeping as many tokens at random."""
    n: float | None = None
    """Questions with boxes."""


@attrs.frozen(kw_only=True)
class Attention(JsonObject):
    """The attention that chose tokens, averaged over questions."""

    lenient: ClassVar[bool] = True
    nulls: ClassVar[frozenset[str]] = frozenset({"concentration", "entropy"})

    concentration: float | None = None
    """The kept tokens' share of the attention to the image."""
    entropy: float | None = None
    """Entropy of the token scores: how even they were."""


@attrs.frozen(kw_only=True)
class Hardware(JsonObject):
    """Where a trial ran."""

    lenient: ClassVar[bool] = True

    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None
    """Threads that torch used."""
    device: str | None = None
    """``cpu``, or the name of the GPU."""
    gpu: str | None = None


@attrs.frozen(kw_only=True)
class Passage(JsonObject):
    """The text that was read."""

    name: str | None = None
    digest: str | None = None
    """16 hexadecimal digits of a SHA-256 over the whole text."""
    tokens: int | None = None


@attrs.frozen(kw_only=True)
class Loss(JsonObject):
    """Nats per token, averaged."""

    nulls: ClassVar[frozenset[str]] = frozenset({"mean", "se"})

    mean: float | None = None
    se: float | None = None
    """Its standard error."""


@attrs.frozen(kw_only=True)
class TokenShare(JsonObject):
    """A share of tokens, from 0 to 1."""

    lenient: ClassVar[bool] = True
    nulls: ClassVar[frozenset[str]] = frozenset({"value", "se"})

    value: float | None = None
    se: float | None = None
    """Its standard error."""


@attrs.frozen(kw_only=True)
class ImportSource(JsonObject):
    """The result file of a harness that a record was imported from."""

    lenient: ClassVar[bool] = True

    harness: str | None = None
    file: str | None = None
    task: str | None = None


@attrs.frozen(kw_only=True)
class Record(JsonObject):
    """What every record may have. An object of this class itself is an attempt without a result, or is damaged."""

    lenient: ClassVar[bool] = True

    id: str
    """Names the trial: a hash over everything that can change its result. It is part of file names."""
    schema: int | None = attrs.field(default=None, metadata=LENIENT)
    """The version of the record's format."""
    error: str | None = None
    """Why the attempt failed: the last line of the error. The trial is run again."""
    refused: str | None = None
    """Why the trial cannot be run."""
    attempt: int | None = None
    """The number of this attempt, from 1."""
    study: str | None = None
    """The study that it belongs to: ``a``, ``b``, ``methods``, ``kv``, ``needle``, ``ppl``, ``demo``, ``tune``."""
    group: str | None = None
    """The group within the study."""
    name: str | None = None
    """The name of the run within the study."""
    model: str | None = None
    weights: str | None = None
    """The beginning of a hash over the model's weights."""
    dtype: str | None = None
    attention_implementation: str | None = attrs.field(default=None, metadata=LENIENT)
    """How a vision-language model computes attention: ``sdpa`` or ``eager``."""
    strategies: dict[str, str] = attrs.field(factory=dict)
    """Hook -> canonical strategy text."""
    recipe: str | None = None
    profile: str | None = None
    """A hash over the head profile that a strategy used."""
    settings: dict[str, object] | None = None
    """The recipe's settings: ``positions``, ``aggregate``, ``min_mass``, ``sink_share``."""
    benchmark: str | None = attrs.field(default=None, metadata=LENIENT)
    questions: str | None = None
    """A hash over the questions that were asked."""
    part: str | None = attrs.field(default=None, metadata=LENIENT)
    """In a search, the part of the questions: ``search`` or ``held-out``."""
    text: Passage | None = attrs.field(default=None, metadata=LENIENT)
    """The text that a language model read."""
    seed: int | None = None
    limit: float | None = None
    """The largest number of questions that was allowed."""
    budget: TokenBudget | None = attrs.field(default=None, metadata=LENIENT)
    n: int | None = None
    """Questions that were answered, or tokens that were scored: so many outcomes are stored beside the record."""
    metric: Metric | None = None
    versions: dict[str, str | None] | None = None
    """Package -> version."""
    hardware: Hardware | None = None
    source: ImportSource | None = attrs.field(default=None, metadata=LENIENT)
    """Where an imported record comes from."""
    command: str | None = None
    """The command line that runs this trial alone."""
    created: str | None = None
    """When, as ISO 8601."""
    seconds: float | None = attrs.field(default=None, metadata=LENIENT)
    """The duration of the trial."""

    @property
    def has_result(self) -> bool:
        """Whether the trial was run to its end; otherwise it failed (``error``) or could not be run (``refused``)."""
        return not (self.error or self.refused)

    @property
    def reads_text(self) -> bool:
        """Whether a language model read a text; otherwise a model answered the questions of a benchmark."""
        return self.benchmark is None and self.text is not None

    def finished(self, kind: type[R], **found: object) -> R:
        """A record of class ``kind`` with the fields of this one, which were known before the trial, and ``found``."""
        known: dict[str, Any] = {field.name: getattr(self, field.name) for field in own_fields(Record)}
        return kind(**known | found)


@attrs.frozen(kw_only=True)
class Result(Record):
    """What every record with a result has."""

    lenient: ClassVar[bool] = False

    strategies: dict[str, str] = attrs.field(validator=_strategies)
    """Hook -> canonical strategy text."""
    metric: Metric
    n: int = attrs.field(validator=_above(0, itself=True))
    """Questions that were answered, or tokens that were scored: so many outcomes are stored beside the record."""
    units: int | None = None
    """Units into which questions are grouped to be averaged and paired; those of MME are pairs of questions."""


@attrs.frozen(kw_only=True)
class VisualRecord(Result):
    """A model that answered the questions of a benchmark."""

    nulls: ClassVar[frozenset[str]] = frozenset({
        "study", "recipe", "limit", "weights", "overlap", "attention", "diversity",
    })  # fmt: skip

    benchmark: str
    budget: TokenBudget
    heads: Heads
    stages: list[PruningStage] | None = attrs.field(default=None, metadata=LENIENT)
    """Where visual tokens are dropped."""
    cost: Cost | None = None
    overlap: Overlap | None = None
    attention: Attention | None = None
    metrics: dict[str, object] | None = None
    """The benchmark's own metrics by name."""
    notes: dict[str, object] | None = None
    """Values that strategies have noted, averaged or counted."""
    timing: dict[str, object] | None = None
    """Hook -> milliseconds in total."""
    pictures: str | None = attrs.field(default="cropped", metadata=LENIENT)
    """How a picture becomes the square of tokens: ``cropped`` or ``padded``; null where tokens have no place in it."""
    diversity: float | None = None
    """1 - the mean pairwise cosine of the kept tokens."""
    unmeasured: dict[str, str] | None = attrs.field(default=None, metadata=LENIENT)
    """Figure -> why it could not be measured."""
    seeds: int | None = attrs.field(default=None, metadata=LENIENT)
    """The number of seeds, where several records were averaged."""


@attrs.frozen(kw_only=True)
class TextRecord(Result):
    """A language model that read a text under KV eviction."""

    nulls: ClassVar[frozenset[str]] = frozenset({"study", "group", "name", "profile"})

    text: Passage
    """The text it read."""
    nll: Loss
    context: float = attrs.field(validator=_above(0.0))
    """Entries that the last token sees, averaged over layers and KV heads."""
    accuracy: TokenShare | None = None
    """The share of next tokens that were predicted."""
    visible: float | None = None
    """Entries that a token sees, averaged over all scored tokens."""
    attention: str | None = None
    """How attention is computed: ``sdpa`` or ``eager``."""
    kv_bytes: float | None = attrs.field(default=None, metadata=LENIENT)
    """Bytes of the cache at the end of the text."""
    kv_bytes_planned: float | None = attrs.field(default=None, metadata=LENIENT)
    """The same as the plan computes it."""
    peak_bytes: float | None = attrs.field(default=None, metadata=LENIENT)
    """The largest size of the cache in bytes."""
    scale: float | None = attrs.field(default=None, metadata=LENIENT)
    """The factor by which the study's windows were multiplied."""
    trained_context: float | None = attrs.field(default=None, metadata=LENIENT)
    """The context length on which the model was trained, in tokens."""


@attrs.frozen(kw_only=True)
class PasskeyGrid(JsonObject):
    """Which passkeys were asked for: lengths in tokens, number of depths, repeats, the filler text, the keys' seed."""

    lenient: ClassVar[bool] = True

    lengths: list[int] = attrs.field(factory=list)
    depths: int = 5
    repeats: int = 1
    filler: str = ""
    seed: int = 0


@attrs.frozen(kw_only=True)
class PasskeyScore(JsonObject):
    """The number of passkeys, the share that was found, and the mean log-probability of their tokens."""

    n: int
    metric: Metric
    logprob: Loss


@attrs.frozen(kw_only=True)
class PasskeyScoreAtDepth(PasskeyScore):
    """The passkeys at one depth of one length."""

    depth: float
    """From 0, the beginning of the text, to 1, its end."""


@attrs.frozen(kw_only=True)
class PasskeyScoreOfLength(PasskeyScore):
    """The passkeys of one length."""

    length: int
    """Tokens."""
    context: float
    """Entries that the last token sees, averaged over layers and KV heads."""
    depths: list[PasskeyScoreAtDepth]


@attrs.frozen(kw_only=True)
class NeedleRecord(Result):
    """A language model that was asked for passkeys under KV eviction; only ``headwise needle`` shows it."""

    nulls: ClassVar[frozenset[str]] = frozenset({"group", "name", "profile"})

    grid: PasskeyGrid
    logprob: Loss
    lengths: list[PasskeyScoreOfLength]
    attention: str | None = None
    """How attention is computed: ``sdpa`` or ``eager``."""
