"""The models that ship: how they were trained and what they can do."""
