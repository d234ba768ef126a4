"""What a saved configuration leaves out: the defaults of its class, read from the source text of transformers.

``save_pretrained`` writes of a model's parts only what differs from their classes: llava-hf/llava-1.5-7b-hf says hardly
more of its language model than its type. Nothing is imported for this, because transformers brings torch along.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from headwise.source import find

_NAME = re.compile(r"[a-z0-9_]{1,64}")


@lru_cache(maxsize=128)
def class_defaults(model_type: str) -> Mapping[str, object] | None:
    """Fields of the configuration class of a ``model_type``, each with its default, None where that is computed.

    None where transformers has no such class.
    """
    for module in _modules(model_type):
        path = find(module)
        for node in ast.parse(path.read_bytes()).body if path else ():
            if isinstance(node, ast.ClassDef) and dict(_fields(node)).get("model_type") == model_type:
                return dict(_fields(node))
    return None


def _modules(model_type: str) -> Iterator[str]:
    """Where the class may be: ``qwen2_5_vl_text`` is a class of ``qwen2_5_vl``, ``clip_vision_model`` of ``clip``."""
    name = model_type.replace("-", "_")
    while _NAME.fullmatch(name):
        yield f"transformers.models.{name}.configuration_{name}"
        name = name.rpartition("_")[0]


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        yield from ((target.id, _literal(statement.value)) for target in targets if isinstance(target, ast.Name))


def _literal(value: ast.expr | None) -> object:
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None
