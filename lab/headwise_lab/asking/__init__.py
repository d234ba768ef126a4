"""A user's own picture or prompt, answered by the model as it is and by each recipe beside it."""
