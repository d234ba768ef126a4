"""Searching for good settings: strategies, counts and budgets, for accuracy against what is computed."""
