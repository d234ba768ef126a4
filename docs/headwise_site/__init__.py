"""The pages of the site that are made from the code; ``docs/hook.py`` hands them to MkDocs."""
