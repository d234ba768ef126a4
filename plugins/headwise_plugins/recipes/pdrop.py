"""PyramidDrop (CVPR 2025, arXiv 2410.17247): a share of the tokens goes at every stage, judged by its own layer.

Asked is the last token of the instruction. Its own setting keeps 576, 288, 144, 72 (an average of 270) and has MME 1467
after training with it. Others' settings: GQA 57.1, 56.0, 41.9. The paper's code renumbers what is left
(``--positions compact``).
"""

from headwise import Preset

RECIPE = Preset("token_pruning=pdrop")
