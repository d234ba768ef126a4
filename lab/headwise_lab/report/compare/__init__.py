"""Output folders side by side."""
