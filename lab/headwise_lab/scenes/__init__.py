"""A world of small objects on a 12 x 12 grid, drawn from seeds. Every question knows the cells that prove its answer.

No torch here: scenes are attrs records, pictures are numpy arrays.
"""

from headwise_lab.scenes.drawing import draw, draw_batch
from headwise_lab.scenes.questions import KINDS, SceneQuestion, ask
from headwise_lab.scenes.sampling import Example, held_out, sample_scene
from headwise_lab.scenes.scene import Label, Scene, Thing
from headwise_lab.scenes.world import COLORS, DIGITS, GRID, PATCH, QUADRANTS, SHAPES, SIZE, TOKENS, WORDS

__all__ = [
    "COLORS",
    "DIGITS",
    "GRID",
    "KINDS",
    "PATCH",
    "QUADRANTS",
    "SHAPES",
    "SIZE",
    "TOKENS",
    "WORDS",
    "Example",
    "Label",
    "Scene",
    "SceneQuestion",
    "Thing",
    "ask",
    "draw",
    "draw_batch",
    "held_out",
    "sample_scene",
]
