"""FastV + FinePruner with dynamic heads: each image chooses the scoring strategy and the number of heads that decide.

From the repository LLaVA-FinePruner-Head, without published figures. The heads chosen are weighted by the softmax of
their scores.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=fastv:layer=2", "head_scoring=adaptive", aggregate="weighted")
