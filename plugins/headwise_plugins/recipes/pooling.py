"""Average pooling of neighbours before the language model: the control of every method that merges.

Published at 144 tokens: 96.4 % of the unpruned model's scores, above FastV and SparseVLM (arXiv 2502.11501).
"""

from headwise import Preset

RECIPE = Preset("token_pruning=pooling")
