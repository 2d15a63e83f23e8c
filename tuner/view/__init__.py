"""The tuner's state as people see it."""
