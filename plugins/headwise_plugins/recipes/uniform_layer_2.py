"""Evenly spaced tokens stay, after two layers: the control of FastV that knows nothing of the picture."""

from headwise import Preset

RECIPE = Preset("token_pruning=uniform:layer=2")
