"""Attention on NVIDIA GPUs: what fits, variants, plans, launches, captured graphs."""
