"""Evenly spaced tokens stay, before the language model: the control that knows nothing of the picture."""

from headwise import Preset

RECIPE = Preset("token_pruning=uniform:layer=0")
