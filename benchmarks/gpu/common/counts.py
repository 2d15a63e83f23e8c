"""Types of options that count."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def count(least: int = 1, of: int = 1) -> Callable[[str], int]:
    """The type of an option: a whole number from `least` on, a multiple of `of`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or value % of:
            many = f", a multiple of {of}" if of > 1 else ""
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}{many}")
        return value

    return number
