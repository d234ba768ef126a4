"""The lab: from a model and strategies to evidence."""
