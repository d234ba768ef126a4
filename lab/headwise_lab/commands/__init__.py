"""The commands of `headwise`; each module imports torch only when its command runs."""
