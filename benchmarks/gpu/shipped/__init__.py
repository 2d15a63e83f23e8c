"""Tables of tuned configs for the package: measured on a GPU, proven, filed."""
