"""What a trial costs and where it runs: times, multiply-adds, memory, hardware."""
