"""Output folders: their records, outcomes, locks and locations; and headwise's cache folder."""
