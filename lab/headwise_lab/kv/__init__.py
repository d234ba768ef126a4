"""Measuring language models under KV eviction: texts, perplexity, passkeys, and paired differences."""
