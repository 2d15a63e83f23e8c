"""Attention on a CPU: one compiled library, no plan."""
