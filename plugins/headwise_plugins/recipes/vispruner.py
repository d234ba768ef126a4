"""VisPruner (ICCV 2025, arXiv 2412.01818): before the language model; what CLS attends to, and a diverse rest.

Published: GQA 58.2 at 128 tokens, 55.4 at 64.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=vispruner")
