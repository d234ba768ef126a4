"""Heads of a language model measured and classified: profiles, their summaries and pictures, and how far they hold."""
