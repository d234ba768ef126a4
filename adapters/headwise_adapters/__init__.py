"""Everything that knows transformers: one file per model family, and the machinery they share."""
