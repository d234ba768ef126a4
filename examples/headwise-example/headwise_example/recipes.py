"""FastV with the quarter of the heads whose attention gathers on the fewest tokens."""

from headwise import Preset

RECIPE = Preset("fastv:layer=2", "last_token", "top_mass:share=0.05", "fixed:share=0.25")
