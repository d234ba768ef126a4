"""A package that was written for hook contract 1.0."""
