"""The lab's commands; each module imports torch only when its command runs."""
