"""FastV (ECCV 2024, arXiv 2403.06764): all heads' attention of the last token, once, after two layers.

Published by SparseVLM's authors, and repeated ever since: GQA 52.7, 49.6, 46.1. The paper's text averages the attention
of all later tokens; its code, and this recipe, ask the last one.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=fastv:layer=2")
