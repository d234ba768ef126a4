"""Scores of predictions by official rules, and the overlap of kept tokens with the evidence."""
