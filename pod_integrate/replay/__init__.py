"""Logs of requests and recorded steps, and what can be learnt from them without a server."""
