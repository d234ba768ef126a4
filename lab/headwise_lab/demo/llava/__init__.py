"""demo-llava: a LLaVA of 3 million weights that answers questions about ``headwise_lab.scenes``, and how it is made."""
