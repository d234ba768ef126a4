"""Finding a family's parts in a loaded model, and holding the model to what its family says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise.errors import ModelError
from headwise.geometry import Geometry
from headwise_adapters.families.family import Family, config_of
from headwise_adapters.parts import TextParts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def found(model: PreTrainedModel, path: str, stock: str) -> PreTrainedModel:
    """The part of a model at a path such as ``model.layers``; raises ModelError, which names ``stock``, without one."""
    part: object = model
    for name in path.split("."):
        part = getattr(part, name, None)
    if part is None:
        article = "an" if stock[0] in "AEIO" else "a"
        raise ModelError(f"{type(model).__name__} has no {path}; attach to {article} {stock}")
    return part


def checked(model: PreTrainedModel, decoder: TextParts, family: Family) -> Geometry:
    """The counts of a model; raises ModelError where it has fewer layers, or other ones, than they say.

    A model runs as many layers as its configuration says: after somebody cut some off, a budget would be planned for
    layers that never run.
    """
    geometry, there = family.geometry(config_of(model)), len(decoder.layers)
    if there < geometry.layers:
        raise ModelError(
            f"{geometry.name} has {there} layers, and its config says {geometry.layers}; set the config's"
            f" num_hidden_layers to {there}"
        )
    if _gated(decoder) not in (None, geometry.gated):
        is_so, said = ("without", "with") if geometry.gated else ("with", "without")
        raise ModelError(
            f"{type(model).__name__} has feed-forward blocks {is_so} a gate, and its family is registered as one"
            f" {said}; its entry point headwise.adapter must name another family"
        )
    return geometry


def _gated(decoder: TextParts) -> bool | None:
    """Whether the first layer's feed-forward block has a gate; None where its names do not tell."""
    names = {name.rpartition(".")[2] for name, _ in decoder.layer(0).named_modules()}
    if names & {"gate_proj", "gate_up_proj"}:
        return True
    return False if names & {"fc1", "c_fc", "up_proj", "dense_h_to_4h"} else None
