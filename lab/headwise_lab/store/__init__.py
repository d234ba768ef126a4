"""Output folders: records, outcomes, locks, and where they lie; headwise's cache folder."""
