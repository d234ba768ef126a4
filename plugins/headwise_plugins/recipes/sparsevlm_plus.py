"""SparseVLM+ (December 2025, in SparseVLM's repository): attention freed of its bias, half of the heads, no merging.

The heads with the largest sums stay, 14 of 28 in the original. Without published figures.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=sparsevlm:variant=plus")
