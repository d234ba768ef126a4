"""Visual tokens dropped while the model runs: what is given, evidence, choices, and what follows from them."""
