"""Tables that somebody else published, counted again."""
