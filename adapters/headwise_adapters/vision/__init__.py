"""Vision towers watched, and how pictures become visual tokens."""
