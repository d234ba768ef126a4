"""Values in files held against attrs classes."""
