"""Observers: plugins that watch every decision and change none."""
