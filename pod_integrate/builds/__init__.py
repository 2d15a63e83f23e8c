"""Compilers and what they leave: cached libraries, ptxas reports, machine code."""
