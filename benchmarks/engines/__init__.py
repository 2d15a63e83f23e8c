"""Servers and models that benchmarks and tests run: SGLang, transformers, a tuner in memory."""
