"""Token-pruning strategies; each file is one of them."""
