"""Built-in strategies of headwise: one strategy, one file, one entry point."""
