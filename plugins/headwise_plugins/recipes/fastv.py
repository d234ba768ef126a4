"""FastV (ECCV 2024, arXiv 2403.06764): all heads' attention of the last token, once, after two layers."""

STRATEGIES = (
    "token_pruning=fastv:layer=2",
    "query_selection=last_token",
    "head_scoring=sum",
    "head_count=all",
)
