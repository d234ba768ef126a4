"""A strategy and a recipe for headwise in a package of their own."""
