"""How long a server's tuner takes from nothing to its first promotions, on a clock made by hand."""
