"""Measuring language models under KV eviction: perplexity, passkeys, and the KV study."""
