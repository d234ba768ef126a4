"""KV-eviction strategies; each file is one of them."""
