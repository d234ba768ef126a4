"""One trial: a model asked the questions of a benchmark under a recipe."""
