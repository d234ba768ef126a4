"""KV eviction: perplexity and accuracy by effective context."""
