"""What headwise shows in a terminal."""

from headwise_lab.terminal.console import Terminal

__all__ = ["Terminal"]
