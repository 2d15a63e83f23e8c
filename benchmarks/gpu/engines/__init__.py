"""Whole engines on a GPU: SGLang, transformers, their traces."""
