"""FEATHER (ICCV 2025, arXiv 2412.13180): FastV judged without rotary positions, with evenly spaced tokens beside it.

Published: localisation (RefCOCO) 43.4 where FastV has 7.6.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=feather")
