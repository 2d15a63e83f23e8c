"""Measuring attention: random batches, a float64 reference, tolerances, paired timing."""
