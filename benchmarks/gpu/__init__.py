"""Everything that a short visit to a GPU needs; `python -m benchmarks.gpu --help`."""
