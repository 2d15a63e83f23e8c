"""A short visit to a GPU from first contact to filed results."""
