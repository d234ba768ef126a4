"""What a trial costs and where it ran: times, multiply-adds, memory, hardware."""
