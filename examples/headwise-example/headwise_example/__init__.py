"""A strategy, a recipe and a benchmark for headwise in a package of their own."""
