"""DART (EMNLP 2025, arXiv 2502.11494): after two layers; tokens least like a few pivots, without asking attention.

Published: GQA 60.0, 58.7, 55.9.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=dart")
