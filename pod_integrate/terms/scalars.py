"""Scalars: the numbers of one call that are not lengths; kernels/common has the same struct."""

from __future__ import annotations

from typing import NamedTuple


class Scalars(NamedTuple):
    """How scores are made; see hybrid_attention.

    The torch op's schema is made of these fields, so each has a plain number's type.
    """

    scale: float
    window_left: int = -1
    logit_cap: float = 0.0
