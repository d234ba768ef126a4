"""What single heads do and are worth, measured."""
