"""Other projects' attention on a CPU, each in a Python environment of its own."""
