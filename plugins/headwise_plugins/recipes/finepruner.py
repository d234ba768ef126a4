"""FastV + FinePruner: as FastV, but only the half of the heads whose attention is sharpest decides."""

STRATEGIES = (
    "token_pruning=fastv:layer=2",
    "query_selection=last_token",
    "head_scoring=sparsity",
    "head_count=fixed:share=0.5",
)
