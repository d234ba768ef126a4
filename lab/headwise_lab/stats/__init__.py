"""Statistics: paired differences, intervals, tests, corrections."""
