"""Scalars: the numbers of one call that are not lengths, as one object from the op to the kernels.

A new one is a field here and in kernels/common's packed.h, and an argument of hybrid_attention and
of emulator.attend: whatever lies between hands the object on.
"""

from __future__ import annotations

import struct
import typing
from typing import NamedTuple


class Scalars(NamedTuple):
    """How scores are made and caches read; see hybrid_attention.

    The torch op's schema and the native struct are made of these fields, so each has a plain
    number's type.
    """

    scale: float
    window_left: int = -1
    logit_cap: float = 0.0
    k_scale: float = 1.0
    v_scale: float = 1.0

    def pack(self) -> bytes:
        """As the native struct of the same fields."""
        return _LAYOUT.pack(*self)


# The type of each field; exactly these, no subclass and no number of NumPy's.
TYPES: tuple[type[int] | type[float], ...] = tuple(typing.get_type_hints(Scalars).values())
_LAYOUT = struct.Struct("".join({float: "d", int: "q"}[kind] for kind in TYPES))
