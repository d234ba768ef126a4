"""Measuring language models under KV eviction: perplexity, passkeys, and the studies made of them."""
