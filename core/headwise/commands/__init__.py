"""The commands that come with core; each is a plain typed function that the command line loads when it is used."""
