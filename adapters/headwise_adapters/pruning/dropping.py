"""Dropping visual tokens between decoder layers: hidden states, positions, masks and cache follow.

Before the first layer of a stage, the survivors are gathered out of the hidden states; merged tokens take their places
among them. The model's own loop keeps handing every later layer what belongs to the full sequence, so each of them gets
its positions and mask cut down the same way. Layers behind a stage cache fewer keys than those in front of it; which
ones they hold is known to the cache itself (pruned_cache), so decoding, further turns and copies of the cache find it
there.

Pruning happens in a forward that carries image tokens, and in no other: decoding steps and later turns without an
image are only kept consistent. Outputs have the length the caller put in; dropped positions come out as zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial, wraps

from torch import Tensor, nn

from headwise.attention_math import taken
from headwise.errors import ModelError
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan, Stage
from headwise.selection import check_read
from headwise_adapters import patching
from headwise_adapters.attention.probe import probing
from headwise_adapters.attention.projections import unrotated
from headwise_adapters.cache.masks import flagged
from headwise_adapters.cache.pruned_cache import PrunedCache, check_whole, expect
from headwise_adapters.eviction import served
from headwise_adapters.eviction.ruling import Block, forward_of, ruling
from headwise_adapters.eviction.trace import Trace
from headwise_adapters.parts import VisionParts
from headwise_adapters.patching import Args, Call, Kwargs
from headwise_adapters.pruning.capturing import ActivationCapture, capturing
from headwise_adapters.pruning.choices import Decision, generating, generation_of
from headwise_adapters.pruning.evidence import Instruments, Scene, StageEvidence
from headwise_adapters.pruning.forward import Forward
from headwise_adapters.pruning.groups import groups
from headwise_adapters.pruning.kept import kept_rows
from headwise_adapters.pruning.outcomes import Outcomes
from headwise_adapters.pruning.restoring import restore


def dropping(parts: VisionParts, pipeline: Pipeline, plan: PruningPlan, patches: ExitStack, trace: Trace) -> Dropper:
    """Patch the model of ``parts`` so that it prunes by a plan; ``patches`` takes everything off again.

    ``trace`` is told what each forward keeps.
    Raises ModelError for attention masks that cannot be cut, and for stages whose evidence is not there.
    """
    flagged(parts.text)
    looks = any({"vision", "clip"} & set(stage.reads) for stage in plan.stages)
    capture = patches.enter_context(capturing(parts, tower=looks))
    instruments = {stage.layer: _instruments(parts, stage, looks, patches) for stage in plan.stages}
    dropper = Dropper(parts, pipeline, plan, instruments=instruments, capture=capture, trace=trace)
    for module, wrapper in dropper.wrappers():
        patches.enter_context(patching.around(module, wrapper))
    if hasattr(parts.head, "generate"):
        patches.enter_context(patching.method(parts.head, "generate", partial(generating, parts.text)))
        patches.enter_context(patching.method(parts.head, "prepare_inputs_for_generation", dropper.preparing))
    return dropper


def _instruments(parts: VisionParts, stage: Stage, looks: bool, stack: ExitStack) -> Instruments:
    """What records the evidence that a stage reads; raises ModelError for evidence that nothing has computed yet."""
    reads = set(stage.reads)
    in_front = reads & {"attention", "unbiased", "keys", "unrotated"}
    if in_front and stage.layer == 0:
        raise ModelError(
            f"a stage before layer 0 reads {', '.join(sorted(in_front))} of the layer in front of it, and there is none"
        )
    module = parts.attention_of(stage.layer - 1) if in_front else None
    probed = module is not None and bool(reads & {"attention", "unbiased", "keys"})
    return Instruments(
        probe=stack.enter_context(probing(module)) if module is not None and probed else None,
        unrotated=stack.enter_context(unrotated(module)) if module is not None and "unrotated" in reads else None,
        looks=looks,
    )


class Dropper:
    """The wrappers of one attachment. The forward that a thread is in is kept in its memory, under the dropper."""

    def __init__(
        self,
        parts: VisionParts,
        pipeline: Pipeline,
        plan: PruningPlan,
        *,
        instruments: dict[int, Instruments],
        capture: ActivationCapture,
        trace: Trace,
    ) -> None:
        self._parts, self._pipeline, self._plan = parts, pipeline, plan
        self._instruments, self._capture, self._trace = instruments, capture, trace
        self._merges = any(stage.merged for stage in plan.stages)
        self._whole_prompts = [stage for stage in plan.stages if not stage.per_image]
        self._by_picture = [stage for stage in plan.stages if stage.per_image]  # whose sizes are known with features
        self._signature = inspect.signature(parts.outer.forward)
        self._asked = inspect.signature(parts.head.forward)
        self._compact = pipeline.recipe.positions == "compact"
        self._asking = object()  # in a forward's memory: what the model was called with

    def wrappers(self) -> Iterator[tuple[nn.Module, patching.Around]]:
        """Pairs of a module and the wrapper that goes around it."""
        yield self._parts.head, self._head
        yield self._parts.outer, self._outer
        yield self._parts.text, self._text
        stages = {stage.layer: stage for stage in self._plan.stages}
        for layer in range(self._plan.stages[0].layer, len(self._parts.layers)):
            yield self._parts.layer(layer), partial(self._layer, layer, stages.get(layer))

    def preparing(self, original: Call) -> Call:
        """``prepare_inputs_for_generation``, which refuses steps that would each choose for themselves."""

        @wraps(original)  # transformers reads signatures
        def prepare(*args: object, **kwargs: object) -> object:
            self._check_steps(kwargs)
            return original(*args, **kwargs)

        return prepare

    def _check_steps(self, kwargs: Kwargs) -> None:
        """Raise ModelError where each step of a `generate` that is not known would choose visual tokens for itself."""
        pictures = kwargs.get("pixel_values") is not None or kwargs.get("mm_encoder_outputs")
        if not pictures or kwargs.get("use_cache") is not False or generation_of(self._parts.text) is not None:
            return
        block = ruling(self._parts.text)
        if block is not None and block.dropper is self:
            raise ModelError(
                "text is generated without a cache (use_cache=False) by a generate that is not the attached model's, so"
                " that each step would choose other visual tokens; call model.generate inside the `with` block, or use"
                " a cache"
            )

    @property
    def _forward(self) -> Forward | None:
        """The forward that this thread is in, if it runs under this recipe."""
        forward: Forward | None = patching.recall(self)
        return forward

    def _head(self, call: Call, args: Args, kwargs: Kwargs) -> object:
        with forward_of(self._parts.text, self._asking) as block:
            if block is not None and block.dropper is self:
                patching.remember(self._asking, patching.arguments_of(self._asked, args, kwargs))
            return call(*args, **kwargs)

    def _outer(self, call: Call, args: Args, kwargs: Kwargs) -> object:
        with forward_of(self._parts.text, self) as block:
            self._begin(block, patching.arguments_of(self._signature, args, kwargs))
            return call(*args, **kwargs)

    def _begin(self, block: Block | None, given: Kwargs) -> None:
        """Remember the forward that begins with the arguments ``given``, if it runs under this recipe."""
        if block is None or block.dropper is not self:
            return
        own = patching.remembered() or {}
        given = {**(own.pop(self._asking, None) or {}), **given}
        if given.get("input_ids") is not None or given.get("inputs_embeds") is not None:  # else the model says so
            self._check(given)
            own[self] = forward = Forward.begin(self._parts, self._capture, given)
            self._check_read(forward, self._whole_prompts)
            _has_pictures(forward, given)

    def _check(self, given: Kwargs) -> None:
        """Refuse, before anything is computed, a cache that is broken or was pruned by another recipe."""
        cache, ids = given.get("past_key_values"), given.get("input_ids")
        check_whole(cache, len(self._parts.layers))
        if isinstance(cache, PrunedCache):
            rows = len(given["inputs_embeds"] if ids is None else ids)
            cache.check(self._parts.text, self._compact, self._plan.stages[0].layer, rows)
            expect(cache)

    def _check_read(self, forward: Forward, stages: list[Stage]) -> None:
        """Refuse stages that would have to drop tokens whose output the caller reads."""
        for stage in stages if forward.reads_images else ():
            for group, keep in groups(forward, stage, self._plan.geometry):
                check_read(forward.read(group.rows, group.columns), keep, stage.layer)

    def _text(self, call: Call, args: Args, kwargs: Kwargs) -> object:
        if self in (patching.remembered() or {}):
            return self._language(call, args, kwargs)
        with forward_of(self._parts.text, self) as block:  # the language model is called by itself
            self._begin(block, patching.arguments_of(inspect.signature(self._parts.text.forward), args, kwargs))
            return self._language(call, args, kwargs)

    def _language(self, call: Call, args: Args, kwargs: Kwargs) -> object:
        forward = self._forward
        if forward is None:
            return call(*args, **kwargs)
        served.causal(self._parts.text, kwargs)
        if self._pipeline.reads_embeddings and forward.has_images:
            forward.embeddings = kwargs.get("inputs_embeds")
        self._check_read(forward, self._by_picture)
        asked = kwargs.get("return_dict", getattr(self._parts.text.config, "return_dict", True))
        output = call(*args, **{**kwargs, "return_dict": True})
        restore(forward, output, len(self._parts.layers))
        if forward.has_images:
            self._trace.keep(kept_rows(forward, merged=self._merges))
        return output.to_tuple() if asked is False else output

    def _layer(self, layer: int, stage: Stage | None, call: Call, args: Args, kwargs: Kwargs) -> object:
        forward = self._forward
        if forward is None:
            return call(*args, **kwargs)
        cache = kwargs.get(self._parts.cache)
        hidden = args[0] if args else kwargs["hidden_states"]
        if stage is not None and forward.has_images:
            if layer == 0:
                forward.entering = hidden
            hidden = self._drop(forward, stage, hidden, kwargs)
        view = forward.view(layer, cache, kwargs, self._compact, hidden)
        if view is None:
            return call(*args, **kwargs)
        if args:
            return call(hidden, *args[1:], **{**kwargs, **view})
        return call(**{**kwargs, **view, "hidden_states": hidden})

    def _drop(self, forward: Forward, stage: Stage, hidden: Tensor, kwargs: Kwargs) -> Tensor:
        """Decide, merge and gather; returns the hidden states of the tokens that stay."""
        forward.check(stage.layer, hidden)
        if stage.layer not in forward.decided:
            forward.decided[stage.layer] = self._decide(forward, stage, hidden, kwargs)
        decision = forward.decided[stage.layer]
        if not decision.survivors:
            return hidden
        hidden = decision.merged(hidden)
        index = forward.drop(decision.survivors).to(hidden.device)
        return taken(hidden, index)

    def _decide(self, forward: Forward, stage: Stage, hidden: Tensor, kwargs: Kwargs) -> Decision:
        """Ask the strategies, and show observers what they selected."""
        scene = Scene(
            parts=self._parts,
            pipeline=self._pipeline,
            stage=stage,
            forward=forward,
            instruments=self._instruments[stage.layer],
            hidden=hidden,
            kwargs=kwargs,
            share=self._plan.share,
        )
        outcomes = Outcomes(forward, stage)
        for group, keep in groups(forward, stage, self._plan.geometry):
            evidence = StageEvidence(scene, group, keep)
            outcomes.add(group, evidence, self._pipeline.select(stage, evidence, evidence.read))
        for selection in outcomes.selections():
            self._pipeline.observe(selection)
        return outcomes.decision()


def _has_pictures(forward: Forward, given: Kwargs) -> None:
    """Raise ModelError for a forward with videos and without pictures, of which nothing would be pruned."""
    made = given.get("mm_encoder_outputs") or {}
    if not forward.has_images and (given.get("pixel_values_videos") is not None or made.get("video") is not None):
        raise ModelError(
            "these prompts have videos and no picture, and tokens of videos are not pruned; give pictures, or leave"
            " token_pruning out"
        )
