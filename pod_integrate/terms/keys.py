"""The keys that everything learned is filed under: geometry, device and bucket.

All three are frozen values with one canonical printable form and a parser for it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from pod_integrate.errors import ShapeError

# Of q, and of K/V: a cache may hold fewer bits than the model computes with.
Dtype = Literal["fp32", "bf16", "fp16"]
KvDtype = Literal["fp32", "bf16", "fp16", "e4m3"]
# By what SGLang calls the dtype of a KV cache.
SGLANG_KV_DTYPES: dict[str, KvDtype] = {"bfloat16": "bf16", "fp8_e4m3": "e4m3"}
ELEMENT_BYTES: dict[KvDtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "e4m3": 1}
_NAMES, _KV_NAMES = "|".join(get_args(Dtype)), "|".join(ELEMENT_BYTES)
_GEOMETRY = re.compile(
    rf"q(?P<hq>\d+)kv(?P<hkv>\d+)d(?P<dim>\d+)-(?P<dtype>{_NAMES})-kv(?P<kv>{_KV_NAMES})"
    r"-s(?P<page>\d+)-w(?P<window>-?\d+)-c(?P<cap>\d+(?:\.\d+)?)",
    re.ASCII,
)
# What a printed geometry may hold, by its group above; the op has limits of its own.
GEOMETRY_LIMITS = {
    "hq": (1, 4096),
    "hkv": (1, 4096),
    "dim": (1, 4096),
    "page": (1, 1 << 20),
    "window": (-1, 1 << 30),
    "cap": (0, 1_000_000_000),
}
MAX_BUCKET_NUMBER = 1 << 40
_DEVICE = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,79}:[a-z0-9_]{1,16}:[1-9]\d{0,3}", re.ASCII)
_SIDE = r"(\d+k?)@(\d+k?)"
_BUCKET = re.compile(rf"(?:p{_SIDE})?(?:(?<=.)\+)?(?:d{_SIDE})?", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Attention shape of one tensor-parallel rank.

    Printed as `q8kv4d64-fp32-kvfp32-s1-w-1-c0`: heads, head dim, dtypes, page size, window
    (-1: none), logit cap (0: none).
    """

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: Dtype
    kv_dtype: KvDtype
    page_size: int
    window_left: int = -1
    logit_cap: float = 0.0

    def __str__(self) -> str:
        return (
            f"q{self.num_q_heads}kv{self.num_kv_heads}d{self.head_dim}-{self.dtype}"
            f"-kv{self.kv_dtype}-s{self.page_size}-w{self.window_left}-c{self.logit_cap:g}"
        )

    @property
    def group(self) -> int:
        """Query heads to a KV head."""
        return self.num_q_heads // self.num_kv_heads

    @classmethod
    def uniform(
        cls, heads: tuple[int, int, int], dtype: Dtype, page_size: int = 16, **scores: Any
    ) -> Self:
        """K/V in the dtype of q.

        heads   query heads, KV heads, head dim
        scores  window_left and logit_cap
        """
        q_heads, kv_heads, dim = heads
        return cls(
            num_q_heads=q_heads,
            num_kv_heads=kv_heads,
            head_dim=dim,
            dtype=dtype,
            kv_dtype=dtype,
            page_size=page_size,
            **scores,
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`; raises ShapeError with the expected form."""
        found = _GEOMETRY.fullmatch(text)
        if found is None:
            raise ShapeError(
                f"geometry {text[:96]!r} is malformed; expected e.g. "
                f"'q8kv4d64-fp32-kvfp32-s1-w-1-c0'"
            )
        part = found.groupdict()
        for name, (low, high) in GEOMETRY_LIMITS.items():
            if not low <= float(part[name]) <= high:
                raise ShapeError(
                    f"geometry {text[:96]!r}: {name} must be {low}..{high}, got {part[name][:24]}"
                )
        return cls(
            num_q_heads=int(part["hq"]),
            num_kv_heads=int(part["hkv"]),
            head_dim=int(part["dim"]),
            dtype=part["dtype"],  # type: ignore[arg-type]
            kv_dtype=part["kv"],  # type: ignore[arg-type]
            page_size=int(part["page"]),
            window_left=int(part["window"]),
            logit_cap=float(part["cap"]),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceKey:
    """What runs the op: `name:capability:units`.

    A GPU is `nvidia-h100-80gb-hbm3:sm90:132` (units are SMs), a CPU
    `intel-xeon-processor:avx512:2` (units are threads of the kernel).
    """

    name: str
    capability: str
    units: int

    def __str__(self) -> str:
        return f"{self.name}:{self.capability}:{self.units}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`; raises ShapeError with the expected form."""
        if _DEVICE.fullmatch(text) is None:
            raise ShapeError(
                f"device {text[:96]!r} is malformed; expected e.g. 'intel-xeon-processor:avx512:2'"
            )
        name, capability, units = text.split(":")
        return cls(name, capability, int(units))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A coarse class of hybrid batch; all four numbers are powers of two, or 0 for an empty side.

    `p1k@8k+d64@4k`: 1K prefill tokens at mean context 8K, 64 decodes at mean context 4K.
    A row with q_len 1 counts as decode, every longer one as prefill.
    """

    prefill_tokens: int = 0
    prefill_context: int = 0
    decodes: int = 0
    decode_context: int = 0

    @classmethod
    def of(cls, q_lens: Sequence[int], kv_lens: Sequence[int]) -> Self:
        """Bucket of a batch from its host lengths; rows with q_len 0 are padding and ignored."""
        tokens = context = decodes = decode_context = 0
        for q_len, kv_len in zip(q_lens, kv_lens, strict=True):
            if q_len == 1:
                decodes += 1
                decode_context += kv_len
            elif q_len > 1:
                tokens += q_len
                # Weighted by tokens: a long chunk says more about the work than a short one.
                context += q_len * kv_len
        return cls(
            prefill_tokens=_pow2(tokens),
            prefill_context=_pow2(context / tokens) if tokens else 0,
            decodes=_pow2(decodes),
            decode_context=_pow2(decode_context / decodes) if decodes else 0,
        )

    @property
    def sides(self) -> str:
        """Which sides hold work: `prefill`, `decode`, `hybrid` or `empty`."""
        if self.prefill_tokens:
            return "hybrid" if self.decodes else "prefill"
        return "decode" if self.decodes else "empty"

    @property
    def is_hybrid(self) -> bool:
        """Whether both sides hold work."""
        return self.prefill_tokens > 0 and self.decodes > 0

    def __str__(self) -> str:
        sides = []
        if self.prefill_tokens:
            sides.append(f"p{_short(self.prefill_tokens)}@{_short(self.prefill_context)}")
        if self.decodes:
            sides.append(f"d{_short(self.decodes)}@{_short(self.decode_context)}")
        return "+".join(sides) or "empty"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`; raises ShapeError with the expected form."""
        if text == "empty":
            return cls()
        found = _BUCKET.fullmatch(text)
        if not text or found is None:
            raise ShapeError(f"bucket {text[:64]!r} is malformed; expected e.g. 'p1k@8k+d64@4k'")
        bucket = cls(
            prefill_tokens=in_full(found[1]),
            prefill_context=in_full(found[2]),
            decodes=in_full(found[3]),
            decode_context=in_full(found[4]),
        )
        numbers = dataclasses.astuple(bucket)
        if str(bucket) != text or any(n & (n - 1) for n in numbers):
            raise ShapeError(f"bucket {text[:64]!r} is not canonical: powers of two, 1024 as 1k")
        if max(numbers) > MAX_BUCKET_NUMBER:
            raise ShapeError(f"bucket {text[:64]!r}: a number is over {MAX_BUCKET_NUMBER}")
        return bucket

    def distance(self, other: Bucket) -> float:
        """Sum of |log2 ratio| over the four numbers; inf when the two have different sides."""
        total = 0.0
        for name in ("prefill_tokens", "prefill_context", "decodes", "decode_context"):
            a, b = getattr(self, name), getattr(other, name)
            if bool(a) != bool(b):
                return math.inf
            if a:
                total += abs(math.log2(a / b))
        return total


def _pow2(value: float) -> int:
    return 1 << max(0, round(math.log2(value))) if value > 0 else 0


def _short(value: int) -> str:
    return f"{value >> 10}k" if value >= 1024 and value % 1024 == 0 else str(value)


def in_full(text: str | None) -> int:
    """A number whose `k` multiplies by 1024, e.g. `8k`; 0 where there is none."""
    if not text:
        return 0
    return int(text[:-1]) << 10 if text.endswith("k") else int(text)
