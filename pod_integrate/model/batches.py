"""Lengths of a hybrid batch and their short text form, e.g. `p512@16k+d55@16k`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pod_integrate.errors import ShapeError
from pod_integrate.terms.keys import Geometry, in_full

_INT32_MAX = 2**31 - 1
# No count has more digits; a number of thousands of them is none for int() either.
_PART = re.compile(r"([pd])(\d{1,20}k?)@(\d{1,20}k?)", re.ASCII)
# Of one batch: twice as many as a step of a trace may have.
MAX_REQUESTS = 8192


class Lengths(NamedTuple):
    """Host lengths of one batch; kv_lens include this step's tokens."""

    q_lens: tuple[int, ...]
    kv_lens: tuple[int, ...]

    @classmethod
    def of(cls, q_lens: Sequence[int], kv_lens: Sequence[int]) -> Lengths:
        """Check `0 <= q_len <= kv_len`, that all fit int32 and both lists are equally long.

        Raises ShapeError.
        """
        if len(q_lens) != len(kv_lens) or not q_lens:
            raise ShapeError(
                f"q-lens and kv-lens must be lists of one length, at least one number each, got "
                f"{len(q_lens)} and {len(kv_lens)}"
            )
        for b, (q_len, kv_len) in enumerate(zip(q_lens, kv_lens, strict=True)):
            if not 0 <= q_len <= kv_len:
                raise ShapeError(
                    f"request {b} has q_len {q_len} and kv_len {kv_len}; 0 <= q_len <= kv_len must "
                    "hold because kv_len includes this step's tokens"
                )
        if max(sum(q_lens), *kv_lens) > _INT32_MAX:
            raise ShapeError(
                f"lengths must fit int32, got {sum(q_lens)} query tokens, kv_len {max(kv_lens)}"
            )
        return cls(tuple(q_lens), tuple(kv_lens))

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Read parts joined by `+`.

        `pT@C` is one chunk of T tokens that ends at context C, `dN@C` is N one-token requests at
        context C; a `k` multiplies by 1024. Raises ShapeError.
        """
        q_lens: list[int] = []
        kv_lens: list[int] = []
        expected = "e.g. 'p1k@8k+d64@4k', or --q-lens and --kv-lens"
        for side, *numbers in parts_of(text, "+", _PART, expected):
            count, context = map(in_full, numbers)
            chunk = side == "p"
            if not chunk and len(q_lens) + count > MAX_REQUESTS:
                raise ShapeError(
                    f"batch {text[:64]!r} has more than {MAX_REQUESTS} requests; ask about fewer"
                )
            q_lens += [count] if chunk else [1] * count
            kv_lens += [context] * (1 if chunk else count)
        return cls.of(q_lens, kv_lens)

    @property
    def prefill(self) -> Lengths:
        """The requests with more than one query token."""
        return self._where([q_len > 1 for q_len in self.q_lens])

    @property
    def decode(self) -> Lengths:
        """The requests with one query token."""
        return self._where([q_len == 1 for q_len in self.q_lens])

    def _where(self, keep: list[bool]) -> Lengths:
        q_lens, kv_lens = (tuple(itertools.compress(lens, keep)) for lens in self)
        return Lengths(q_lens, kv_lens)


def parts_of(text: str, joint: str, part: re.Pattern[str], expected: str) -> list[tuple[Any, ...]]:
    """Groups of each of a batch's parts; raises ShapeError with the first that is malformed."""
    found = []
    for piece in text.split(joint):
        match = part.fullmatch(piece)
        if match is None:
            raise ShapeError(
                f"batch {text[:64]!r} is malformed at {piece[:32]!r}; expected {expected}"
            )
        found.append(match.groups())
    return found


def visible_pairs(
    q_lens: Sequence[int], kv_lens: Sequence[int], window_left: int
) -> npt.NDArray[np.int64]:
    """(query, key) pairs that causal, bottom-right aligned requests with a window attend; [B]."""
    q, kv = (np.asarray(lens, dtype=np.int64) for lens in (q_lens, kv_lens))
    past = kv - q
    # Rows that see all before them; each of the others sees window_left + 1 keys.
    whole = q if window_left < 0 else np.clip(window_left - past, 0, q)
    seen: npt.NDArray[np.int64] = whole * past + whole * (whole + 1) // 2
    return seen + (q - whole) * (window_left + 1)


def paper_geometry(num_q_heads: int, num_kv_heads: int) -> Geometry:
    """Heads of a published case; all of them have head dim 128 and 16-bit values."""
    return Geometry.uniform((num_q_heads, num_kv_heads, 128), "bf16")
