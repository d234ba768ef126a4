"""Whole methods at equal budgets."""
