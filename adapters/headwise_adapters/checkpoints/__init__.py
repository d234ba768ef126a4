"""Checkpoints in layouts that transformers does not open."""
