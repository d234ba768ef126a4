"""Head-count strategies; each file is one of them."""
