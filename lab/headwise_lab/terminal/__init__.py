"""Consoles and progress bars of headwise."""

from headwise_lab.terminal.console import Terminal

__all__ = ["Terminal"]
