"""Trained weights: questions, a text, and what a server says of both."""
