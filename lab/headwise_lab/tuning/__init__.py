"""Searches for strategies, head counts and budgets that give a high accuracy for little computation."""
