"""A serving process at work: tables in use, sampled steps, the way to the tuner and back."""
