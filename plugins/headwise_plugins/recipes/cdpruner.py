"""CDPruner (NeurIPS 2025, arXiv 2506.10967): before the language model; diverse tokens that suit the question.

Published: GQA 59.6 at 128 tokens, 58.6 at 64.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=cdpruner")
