"""FastV with the heads of this package."""

from headwise import Preset

RECIPE = Preset("fastv:layer=2", "last_token", "spread_1_0:power=2", "few_1_0", positions="keep")
PLAIN = ("fastv:layer=2", "last_token", "spread_1_0", "few_1_0")
