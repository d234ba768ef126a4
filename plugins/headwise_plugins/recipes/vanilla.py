"""The unmodified model: every visual token stays in every layer."""

from headwise import Preset

RECIPE = Preset("token_pruning=none")
