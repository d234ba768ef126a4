"""What strategies kept, drawn over the pictures."""
