"""Other libraries' attention on the same batch."""
