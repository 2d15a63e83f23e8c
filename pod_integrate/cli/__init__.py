"""`pod-attn`: one command for building, running, tuning, measuring and asking what is wrong."""

from pod_integrate.cli.app import main

__all__ = ["main"]
