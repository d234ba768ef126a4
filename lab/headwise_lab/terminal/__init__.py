"""Consoles and progress bars of headwise."""

from headwise_lab.terminal.console import Terminal, beside

__all__ = ["Terminal", "beside"]
