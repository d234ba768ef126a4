"""Dropping visual tokens between decoder layers: hidden states, positions, masks and cache follow.

Before the first layer of a stage, the survivors are gathered out of the hidden states. The model's own loop keeps
handing every later layer what belongs to the full sequence, so each of them gets its positions and mask cut down the
same way. Layers behind a stage cache fewer keys than those in front of it; which ones they hold is remembered on the
cache itself, so decoding, further turns and copies of the cache find it there. The first layer's cache tells
transformers how far the sequence has come, therefore it always reports the full length.

Pruning happens in a forward that carries image tokens, and in no other: decoding steps and later turns without an
image are only kept consistent. Outputs have the length the caller put in; dropped positions come out as zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan, Selection, Stage
from headwise_adapters.anatomy import Anatomy
from headwise_adapters.evidence import StageEvidence
from headwise_adapters.forward import Forward
from headwise_adapters.probe import Probe, probing

_Kwargs = dict[str, Any]


@contextmanager
def dropping(anatomy: Anatomy, pipeline: Pipeline, plan: PruningPlan) -> Iterator[None]:
    """Prune ``anatomy``'s model by a plan; every hook and probe is gone afterwards, also after an exception."""
    with ExitStack() as stack:
        probes = {
            stage.layer: stack.enter_context(probing(anatomy.attention_of(stage.layer - 1)))
            for stage in plan.stages
            if "attention" in stage.reads
        }
        dropper = Dropper(anatomy, pipeline, plan, probes)
        for handle in dropper.hooks():
            stack.callback(handle.remove)
        yield


class Dropper:
    """The hooks of one attachment, and the forward they are in."""

    def __init__(self, anatomy: Anatomy, pipeline: Pipeline, plan: PruningPlan, probes: dict[int, Probe]) -> None:
        self._anatomy, self._pipeline, self._plan, self._probes = anatomy, pipeline, plan, probes
        self._signature = inspect.signature(anatomy.outer.forward)
        self._forward: Forward | None = None
        self._pixels: Tensor | None = None  # what the vision tower last saw: `generate` hands on features only

    def hooks(self) -> list[Any]:
        """Register everything; returns the handles."""
        anatomy, handles = self._anatomy, []
        handles.append(anatomy.tower.register_forward_pre_hook(self._look, with_kwargs=True))
        handles.append(anatomy.outer.register_forward_pre_hook(self._enter, with_kwargs=True))
        handles.append(anatomy.outer.register_forward_hook(self._leave, always_call=True))
        handles.append(anatomy.text.register_forward_hook(self._restore_length))
        stages = {stage.layer: stage for stage in self._plan.stages}
        for layer in range(self._plan.stages[0].layer, len(anatomy.layers)):
            hook = self._layer_hook(layer, stages.get(layer))
            handles.append(anatomy.layers[layer].register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def _look(self, _: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> None:
        self._pixels = args[0] if args else kwargs.get("pixel_values")

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: _Kwargs) -> None:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        self._forward = Forward.begin(self._anatomy, {**given, **given.get("kwargs", {})})

    def _leave(self, *_: object) -> None:
        self._forward = None
        for probe in self._probes.values():
            probe.forget()

    def _restore_length(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        """Put surviving hidden states back where their tokens stood, so that the caller's positions still hold."""
        forward = self._forward
        if forward is None or forward.tokens is None or not hasattr(output, "last_hidden_state"):
            return output
        short = output.last_hidden_state
        full = short.new_zeros(short.shape[0], forward.length, short.shape[2])
        states = short * forward.tokens.real.unsqueeze(-1)
        index = forward.tokens.index.unsqueeze(-1).expand_as(short)
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
                hidden = self._drop(forward, stage, hidden)
            view = forward.view(layer, cache, kwargs, self._pipeline.recipe.positions == "compact", hidden)
            if view is None:
                return None
            kwargs = {**kwargs, **view}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    def _drop(self, forward: Forward, stage: Stage, hidden: Tensor) -> Tensor:
        """Select and gather; returns the hidden states of the tokens that stay."""
        keeps = [stage.keep_of(entered, self._plan.geometry) if entered else 0 for entered in forward.entered]
        counts = forward.layout.image_counts
        groups: dict[tuple[int, int], list[int]] = {}
        for row, (count, keep) in enumerate(zip(counts, keeps, strict=True)):
            if keep < count:
                groups.setdefault((count, keep), []).append(row)
        survivors: dict[int, Tensor] = {}
        for (_, keep), rows in groups.items():
            survivors.update(self._select(forward, stage, hidden, rows, keep))
        if not survivors:
            return hidden
        index = forward.drop(survivors)
        return hidden.gather(1, index.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))

    def _select(self, forward: Forward, stage: Stage, hidden: Tensor, rows: list[int], keep: int) -> dict[int, Tensor]:
        """Row -> positions of the visual tokens that stay, for rows with equally many; observers see it."""
        evidence = StageEvidence(
            pipeline=self._pipeline,
            layout=forward.layout,
            rows=rows,
            hidden_states=hidden,
            probe=self._probes.get(stage.layer),
            image_seeds=lambda: forward.seeds(self._pixels),
            share=self._plan.share,
            keep=keep,
        )
        found = self._pipeline.select(stage, evidence)
        kept, token_scores = found.positions, found.scores
        entered = torch.stack([torch.from_numpy(forward.visual_numbers(row)) for row in rows])
        self._pipeline.observe(
            Selection(
                layer=stage.layer,
                rows=tuple(rows),
                entered=entered,
                kept=entered.gather(1, kept.cpu()),
                attention=evidence.mean_attention,
                token_scores=token_scores,
                heads=evidence.choice,
            )
        )
        return dict(zip(rows, evidence.columns.gather(1, kept.to(evidence.columns.device)), strict=True))
