"""Dropping visual tokens between decoder layers: hidden states, positions, masks and cache follow.

Before the first layer of a stage, the survivors are gathered out of the hidden states; merged tokens take their places
among them. The model's own loop keeps handing every later layer what belongs to the full sequence, so each of them gets
its positions and mask cut down the same way. Layers behind a stage cache fewer keys than those in front of it; which
ones they hold is remembered on the cache itself, so decoding, further turns and copies of the cache find it there. The
first layer's cache tells transformers how far the sequence has come, therefore it always reports the full length.

Pruning happens in a forward that carries image tokens, and in no other: decoding steps and later turns without an
image are only kept consistent. Outputs have the length the caller put in; dropped positions come out as zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from headwise.errors import ModelError
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan, Stage
from headwise_adapters.anatomy import Anatomy
from headwise_adapters.evidence import Instruments, Scene, StageEvidence
from headwise_adapters.forward import Forward
from headwise_adapters.groups import groups
from headwise_adapters.outcomes import Outcomes
from headwise_adapters.probe import probing
from headwise_adapters.projections import unrotated
from headwise_adapters.watching import Watcher, watching

_Kwargs = dict[str, Any]


@contextmanager
def dropping(anatomy: Anatomy, pipeline: Pipeline, plan: PruningPlan) -> Iterator[None]:
    """Prune ``anatomy``'s model by a plan; every hook and probe is gone afterwards, also after an exception."""
    looked_at = any({"vision", "clip"} & set(stage.reads) for stage in plan.stages)
    with ExitStack() as stack:
        watcher = stack.enter_context(watching(anatomy, tower=looked_at))
        instruments = {stage.layer: _instruments(anatomy, stage, watcher, stack) for stage in plan.stages}
        dropper = Dropper(anatomy, pipeline, plan, instruments, watcher)
        for handle in dropper.hooks():
            stack.callback(handle.remove)
        yield


def _instruments(anatomy: Anatomy, stage: Stage, watcher: Watcher, stack: ExitStack) -> Instruments:
    """What the stage's evidence needs to have running before the stage comes."""
    reads = set(stage.reads)
    in_front = reads & {"attention", "unbiased", "keys", "unrotated"}
    if in_front and stage.layer == 0:
        raise ModelError(
            f"a stage before layer 0 reads {', '.join(sorted(in_front))} of the layer in front of it, and there is none"
        )
    module = anatomy.attention_of(stage.layer - 1) if in_front else None
    probed = module is not None and bool(reads & {"attention", "unbiased", "keys"})
    return Instruments(
        probe=stack.enter_context(probing(module)) if module is not None and probed else None,
        unrotated=stack.enter_context(unrotated(module)) if module is not None and "unrotated" in reads else None,
        seen=watcher.seen,
    )


class Dropper:
    """The hooks of one attachment, and the forward they are in."""

    def __init__(
        self,
        anatomy: Anatomy,
        pipeline: Pipeline,
        plan: PruningPlan,
        instruments: dict[int, Instruments],
        watcher: Watcher,
    ) -> None:
        self._anatomy, self._pipeline, self._plan = anatomy, pipeline, plan
        self._instruments, self._watcher = instruments, watcher
        self._signature = inspect.signature(anatomy.outer.forward)
        self._forward: Forward | None = None

    def hooks(self) -> list[Any]:
        """Register everything; returns the handles."""
        anatomy, handles = self._anatomy, []
        handles.append(anatomy.outer.register_forward_pre_hook(self._enter, with_kwargs=True))
        handles.append(anatomy.outer.register_forward_hook(self._leave, always_call=True))
        if self._pipeline.reads_embeddings:
            handles.append(anatomy.text.register_forward_pre_hook(self._embed, with_kwargs=True))
        handles.append(anatomy.text.register_forward_hook(self._restore_length))
        stages = {stage.layer: stage for stage in self._plan.stages}
        for layer in range(self._plan.stages[0].layer, len(anatomy.layers)):
            hook = self._layer_hook(layer, stages.get(layer))
            handles.append(anatomy.layers[layer].register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> None:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        self._forward = Forward.begin(self._anatomy, self._watcher, {**given, **given.get("kwargs", {})})

    def _leave(self, *_: object) -> None:
        self._forward = None
        for instruments in self._instruments.values():
            instruments.forget()

    def _embed(self, _: nn.Module, __: tuple[Any, ...], kwargs: _Kwargs) -> None:
        if self._forward is not None and self._forward.has_images:
            self._forward.embeddings = kwargs.get("inputs_embeds")

    def _restore_length(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        """Put surviving hidden states back where their tokens stood, so that the caller's positions still hold."""
        forward = self._forward
        if forward is None or forward.tokens is None or not hasattr(output, "last_hidden_state"):
            return output
        short = output.last_hidden_state
        full = short.new_zeros(short.shape[0], forward.length, short.shape[2])
        states = short * forward.tokens.real.to(short.device).unsqueeze(-1)
        index = forward.tokens.index.to(short.device).unsqueeze(-1).expand_as(short)
        output.last_hidden_state = full.scatter(1, index, states)
        return output

    def _layer_hook(self, layer: int, stage: Stage | None) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> tuple[tuple[Any, ...], _Kwargs] | None:
            forward = self._forward
            if forward is None:
                return None
            cache = kwargs.get(self._anatomy.cache)
            hidden = args[0] if args else kwargs["hidden_states"]
            if stage is not None and forward.has_images:
                hidden = self._drop(forward, stage, hidden, kwargs)
            view = forward.view(layer, cache, kwargs, self._pipeline.recipe.positions == "compact", hidden)
            if view is None:
                return None
            kwargs = {**kwargs, **view}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    def _drop(self, forward: Forward, stage: Stage, hidden: Tensor, kwargs: _Kwargs) -> Tensor:
        """Select, merge and gather; returns the hidden states of the tokens that stay."""
        scene = Scene(
            anatomy=self._anatomy,
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
            outcomes.add(group, evidence, self._pipeline.select(stage, evidence))
        if not outcomes:
            return hidden
        hidden = outcomes.merged(hidden)
        for selection in outcomes.selections():
            self._pipeline.observe(selection)
        index = forward.drop(outcomes.survivors()).to(hidden.device)
        return hidden.gather(1, index.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
