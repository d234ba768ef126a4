"""Head selection: scores by budget and head count."""
