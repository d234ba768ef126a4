"""demo-pythia: a GPT-NeoX of 3.4 million weights that has read the King James Bible, Shakespeare and Milton."""
