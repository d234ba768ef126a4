"""The models that strategies are asked to plan for: two large ones, a small one, and one whose heads share keys."""

from __future__ import annotations

from headwise.geometry import Geometry

LARGE = Geometry(
    name="large", layers=32, heads=32, kv_heads=32, head_dim=128, hidden=4096, intermediate=11008, visual_tokens=576
)
LARGER = Geometry(
    name="larger", layers=40, heads=40, kv_heads=40, head_dim=128, hidden=5120, intermediate=13824, visual_tokens=576
)
SMALL = Geometry(
    name="small", layers=12, heads=8, kv_heads=8, head_dim=16, hidden=128, intermediate=384, visual_tokens=144
)
GROUPED = Geometry(
    name="grouped", layers=6, heads=8, kv_heads=2, head_dim=8, hidden=64, intermediate=96, visual_tokens=36
)
