"""The models that ship with headwise: their training and their evaluation."""
