"""KV eviction: a stock model's attention asks the cache what is held."""
