"""A strategy for headwise in a package of its own."""
