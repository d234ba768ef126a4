"""Tables, figures and facts as every page sets them."""
