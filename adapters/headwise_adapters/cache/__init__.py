"""Caches that hold less than the model read: of pruned prompts, and of evicted entries per KV head."""
