"""The benchmarks that papers report, read from their official files and scored by their official formulas."""
