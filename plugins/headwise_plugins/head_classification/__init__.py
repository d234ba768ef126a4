"""Head-classification strategies; each file is one of them."""
