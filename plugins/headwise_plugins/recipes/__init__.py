"""Named recipes: combinations of strategy texts, one readable file each."""
