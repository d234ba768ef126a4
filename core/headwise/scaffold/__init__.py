"""What ``headwise new`` writes: a strategy for each hook that is asked for, and the package around them."""
