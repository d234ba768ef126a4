"""VisionZip (CVPR 2025, arXiv 2412.04467): before the language model; what CLS attends to, and the rest merged.

Published: GQA 59.3, 57.6, 55.1.
"""

from headwise import Preset

RECIPE = Preset("token_pruning=visionzip")
