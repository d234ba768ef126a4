"""What follows `headwise` in a terminal; each module imports torch only when its command runs."""
