"""PyramidDrop with a stage more, before layer 2, as in the comparison tables at averages of 192, 128 and 64.

The method's own stages process everything in the first quarter of the layers, so that no average below 144.8 of 576 is
within reach. Others put one more stage in front (SparseVLM's successors and the study this project grew from), and that
is what "PDrop at 64" means in their tables; the authors never published such a setting.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=pdrop:early=2")
