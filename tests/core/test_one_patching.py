"""Models are changed in one module, ``headwise_adapters.patching``, and nowhere else; nothing waits for a finaliser."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
ROOTS = ("core", "plugins", "adapters", "lab", "examples")
PATCHING = "adapters/headwise_adapters/patching.py"
ALLOWED = {
    ("adapters/headwise_adapters/cache/ragged_cache.py", "setattr"): "tags new keys, tensors of one forward",
    ("adapters/headwise_adapters/cache/pruned_cache.py", "__class__"): "the class of a cache, which is the caller's",
    ("lab/headwise_lab/demo/training.py", "setattr"): "a training run puts its own saved fields back",
}
METHODS = {"forward", "__call__", "__class__", "_attn_implementation", "get_image_features", "generate"}
METHODS |= {"prepare_inputs_for_generation", "_forward_hooks", "_forward_pre_hooks"}
CALLS = {"setattr", "delattr", "__setattr__", "__delattr__", "set_attn_implementation", "finalize"}


def _name(node):
    """The last name of ``a.b.name`` or ``name``, empty for anything else."""
    return getattr(node, "id", getattr(node, "attr", ""))


def _changes(tree):
    """What in a module could change a model: names of calls, of attributes written to, of finalisers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__del__":
            yield "__del__"
        if isinstance(node, ast.Call):
            called = _name(node.func)
            hooks = called.startswith("register_") and called.endswith("hook") and "structure" not in called
            tables = called == "register" and "ATTENTION" in _name(getattr(node.func, "value", None))
            if hooks or tables or called in CALLS:
                yield called
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Delete):
            targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
            for target in (part for one in targets for part in ast.walk(one)):
                if isinstance(target, ast.Attribute) and target.attr in METHODS:
                    yield target.attr
                if isinstance(target, ast.Subscript) and _name(getattr(target.value, "func", None)) == "vars":
                    yield "vars"
                if isinstance(target, ast.Subscript) and "ATTENTION" in _name(target.value):
                    yield "a table of attention functions"


def _files():
    return sorted(path for root in ROOTS for path in (HOUSE / root).rglob("*.py"))


def test_nothing_but_patching_changes_a_model():
    found = {
        (path.relative_to(HOUSE).as_posix(), change)
        for path in _files()
        for change in _changes(ast.parse(path.read_text(encoding="utf-8")))
    }
    elsewhere = {one for one in found if one[0] != PATCHING}
    assert elsewhere == set(ALLOWED)
    assert {change for path, change in found if path == PATCHING} >= {"__setattr__", "setattr", "vars", "register"}


@pytest.mark.parametrize(
    "line",
    [
        "layer.register_forward_hook(f)",
        "layer.register_full_backward_pre_hook(f)",
        "layer.forward = f",
        "a, layer.self_attn.forward = f, g",
        "del layer.forward",
        "setattr(model, 'forward', f)",
        "vars(model)['forward'] = f",
        "object.__setattr__(model, 'x', f)",
        "model.config._attn_implementation = 'mine'",
        "ALL_ATTENTION_FUNCTIONS.register('mine', f)",
        "ALL_ATTENTION_FUNCTIONS['mine'] = f",
        "weakref.finalize(model, f)",
        "class A:\n    def __del__(self): pass",
    ],
)
def test_each_way_to_change_a_model_is_seen(line):
    assert list(_changes(ast.parse(line)))
