"""SparseVLM (ICML 2025, arXiv 2410.04417): the question's rater words decide in three stages; dropped tokens merge.

Published for v1.0: GQA 57.6, 56.0, 52.7; for v1.5: 59.5, 58.4, 53.8. Its "192" processes 206.5 tokens. The paper's code
renumbers what is left (``--positions compact``).
"""

from headwise import Preset

RECIPE = Preset("token_pruning=sparsevlm")
