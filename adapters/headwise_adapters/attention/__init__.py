"""Attention as layers compute it: rows of few queries, projections, rotary turns, dense attention of a ragged cache."""
