"""Measuring and classifying attention heads: profiles, their summaries and pictures, and how reliable they are."""
