"""The tuner over HTTP: API, documentation, live feed, metrics."""
