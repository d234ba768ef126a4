"""Named recipes: combinations of strategy texts and settings, one readable file each.

What is published is quoted where it can be compared: LLaVA-1.5-7B on GQA at 192, 128 and 64 visual tokens, 61.9 without
pruning. Papers count those tokens differently; a headwise budget is always what the layers process.
"""
