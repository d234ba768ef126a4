"""Statistics: the one rule by which headwise calls a difference one.

``means``: a mean and its standard error. ``resampling``: intervals and probabilities of paired differences. ``blocks``:
what the unit is where tokens of one text depend on each other. ``differences``: a paired difference with all of that.
``rule``: the level, the correction over a table, and the sentence that states both. ``interpolation``: how far off a
reference between two budgets may be.
"""
