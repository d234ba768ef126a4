"""Checks the values in files against attrs classes, and makes instances of them."""
