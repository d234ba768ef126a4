"""Statistics: the one rule that decides whether two results differ.

``means``: a mean and its standard error. ``resampling``: intervals and probabilities of paired differences. ``blocks``:
the unit of a test where tokens of one text depend on each other. ``differences``: a paired difference with interval,
probability and verdict. ``power``: the smallest difference that could have been seen. ``rule``: the correction over a
table, and the sentence that states the rule. ``interpolation``: how large the error of a reference between two budgets
may be.
"""
