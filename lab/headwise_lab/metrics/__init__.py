"""What a prediction is worth, and what the kept tokens saw."""
