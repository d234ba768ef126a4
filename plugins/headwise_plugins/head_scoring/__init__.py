"""Head-scoring strategies; each file is one of them."""
