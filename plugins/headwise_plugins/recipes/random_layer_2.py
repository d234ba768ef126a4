"""Random tokens stay, after two layers: the control of FastV and of every method that prunes there."""

from headwise import Preset

RECIPE = Preset("token_pruning=random:layer=2")
