"""Query-selection strategies; each file is one of them."""
