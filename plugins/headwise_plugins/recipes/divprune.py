"""DivPrune (CVPR 2025, arXiv 2503.02175): before the language model; tokens as far from each other as can be.

Published: GQA 60.0, 59.3, 57.8.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=divprune")
