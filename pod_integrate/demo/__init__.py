"""The demo: a stock SGLang server on our op, a load of real shape, a tuner and a live view."""
