"""The unmodified model: every visual token stays in every layer."""

STRATEGIES = ("token_pruning=none",)
