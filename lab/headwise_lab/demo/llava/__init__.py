"""demo-llava: how a LLaVA of 3 million weights learns to answer questions about ``headwise_lab.scenes``."""
