"""Random tokens stay, before the language model: the control of every method that prunes there.

Published at 144 tokens: 95.0 % of the unpruned model's scores (arXiv 2502.11501).
"""

from headwise import Preset

RECIPE = Preset("token_pruning=random:layer=0")
