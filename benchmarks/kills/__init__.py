"""SIGKILL of any process of tuner and server, and what is left of what was acknowledged."""
