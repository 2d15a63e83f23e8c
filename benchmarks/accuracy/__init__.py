"""The law of accuracy, and the cases that the op must keep it in."""
