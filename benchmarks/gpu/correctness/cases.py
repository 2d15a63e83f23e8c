"""What the correctness sweep attends: shapes, features, and configs to run them with."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from pod_integrate.devices.cuda import variants
from pod_integrate.devices.cuda.choices import tiles_of
from pod_integrate.devices.cuda.decode_rows import require_group
from pod_integrate.devices.cuda.limits import HEAD_DIMS, Architecture, default_tiles, require_fits
from pod_integrate.devices.cuda.variants import DTYPES, with_tiles
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.terms.config import STRATEGIES, PodConfig
from pod_integrate.terms.keys import Dtype, Geometry

# Divides lengths on the emulated SM, which is slower by six orders of magnitude.
TINY = 32


class Shape(NamedTuple):
    """Lengths of a batch, its heads and page size; `features` as hybrid_attention takes them."""

    name: str
    q_lens: tuple[int, ...]
    kv_lens: tuple[int, ...]
    heads: tuple[int, int] = (8, 2)
    page_size: int = 16
    window_left: int = -1
    logit_cap: float = 0.0
    scale: float | None = None
    sinks: bool = False
    row_starts: bool = False
    strided: bool = False

    def tiny(self) -> Shape:
        """The same features with lengths that the emulated SM attends in a second."""
        q = tuple(-(-n // TINY) if n > 16 else n for n in self.q_lens)
        kv = (-(-n // TINY) if n > 64 else n for n in self.kv_lens)
        window = self.window_left
        return self._replace(
            q_lens=q,
            kv_lens=tuple(max(a, b) for a, b in zip(q, kv, strict=True)),
            window_left=max(3, window // TINY) if window > 0 else window,
        )


SHAPES = (
    Shape("hybrid", (300, 1, 1, 1, 1, 1), (900, 70, 2100, 1, 33, 4096)),
    Shape("page 1", (130, 1, 1), (700, 1200, 65), page_size=1),
    Shape("page 64, rows of indices", (130, 1, 1), (700, 3000, 65), page_size=64, row_starts=True),
    Shape("page edges", (16, 17, 15, 1, 1, 1), (16, 17, 31, 15, 16, 17)),
    Shape("window", (300, 1, 1), (900, 2500, 90), window_left=127),
    Shape("window 0", (40, 1), (90, 2000), window_left=0),
    Shape("logit cap", (300, 1, 1), (900, 2500, 90), logit_cap=30.0),
    Shape("sinks", (300, 1, 1), (900, 2500, 90), sinks=True),
    Shape("window, cap, sinks", (300, 1), (900, 2500), window_left=64, logit_cap=20.0, sinks=True),
    Shape("scale", (100, 1), (300, 900), scale=0.3),
    Shape("ragged prefills", (17, 1, 128, 129, 1, 700), (17, 40, 1000, 129, 800, 1900)),
    Shape("speculative rows", (2, 8, 1, 5, 200), (900, 2100, 64, 5, 333)),
    Shape("empty request", (0, 60, 1), (5, 60, 100)),
    Shape("prefill only", (500, 33), (1500, 33)),
    Shape("decode only", (1,) * 9, (1, 2, 63, 64, 65, 1000, 2048, 4097, 16)),
    Shape("no group", (100, 1, 1), (400, 900, 30), heads=(4, 4)),
    Shape("group 16", (100, 1, 3), (400, 900, 2100), heads=(32, 2)),
    Shape("group 5", (100, 1, 4), (400, 900, 700), heads=(10, 2)),
    Shape("strided", (200, 1, 1), (600, 900, 77), strided=True),
    Shape("many decodes", (1,) * 150 + (256,), tuple(range(100, 250)) + (1024,)),
)
_CORE = ("hybrid", "window, cap, sinks", "ragged prefills", "speculative rows", "decode only")


@dataclasses.dataclass(frozen=True)
class Check:
    """One call to make and compare with the reference."""

    shape: Shape
    dtype: Dtype
    head_dim: int
    config: PodConfig
    label: str
    quantised: bool = False

    @property
    def name(self) -> str:
        """Unique within the sweep."""
        kept = " over e4m3" if self.quantised else ""
        return f"{self.shape.name} | {self.dtype}{kept} d{self.head_dim} | {self.label}"

    @property
    def geometry(self) -> Geometry:
        """Of the call."""
        s = self.shape
        plain = Geometry.uniform(
            (s.heads[0], s.heads[1], self.head_dim),
            self.dtype,
            page_size=s.page_size,
            window_left=s.window_left,
            logit_cap=s.logit_cap,
        )
        return dataclasses.replace(plain, kv_dtype="e4m3") if self.quantised else plain

    @property
    def scales(self) -> dict[str, float]:
        """Of K and V: keyword arguments of the call."""
        return {"k_scale": 0.37, "v_scale": 2.5} if self.quantised else {}

    def make(self) -> Case:
        """Inputs on the host; unused slots hold NaN."""
        s = self.shape
        return make_batch(
            *(s.q_lens, s.kv_lens),
            geometry=self.geometry,
            seed=len(self.name),
            row_starts=s.row_starts,
            strided=s.strided,
        )

    def features(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the call, and of the reference."""
        s = self.shape
        told: dict[str, Any] = {"window_left": s.window_left, "logit_cap": s.logit_cap}
        if s.scale is not None:
            told["scale"] = s.scale
        if s.sinks:
            told["sinks"] = torch.linspace(-2.0, 3.0, s.heads[0], device=device)
        return told


def all_checks(arch: Architecture) -> Iterator[Check]:
    """Every shape with the default config of each dtype and head dim, and chosen shapes with more.

    Those run with all strategies, with other run-time settings, and with every other shipped
    variant.
    """
    for head_dim in HEAD_DIMS:
        for dtype in ("bf16", "fp16"):
            config = default_tiles(arch, head_dim)
            for shape in SHAPES:
                yield Check(shape, dtype, head_dim, config, "default")
            for strategy in STRATEGIES[1:]:
                other = dataclasses.replace(config, strategy=strategy)  # type: ignore[arg-type]
                yield from _core(dtype, head_dim, other, strategy)
            # With an open ratio small batches may run in two launches.
            fused = dataclasses.replace(config, prefill_ctas=1, decode_ctas=1)
            yield from _core(dtype, head_dim, fused, "1:1")
    base = default_tiles(arch, 128)
    for label, settings in RUN_TIME.items():
        yield from _core("bf16", 128, dataclasses.replace(base, **settings), label)
    for variant in variants.shipped(arch)[len(variants.defaults(arch)) :]:
        if variant.kv_bytes > 1:
            yield from _core(variant.dtype, variant.head_dim, variant.config(), variant.name)


def byte_checks(arch: Architecture) -> Iterator[Check]:
    """K and V of 8 bits: all shapes with defaults and in CTAs for both ops, some with others."""
    for head_dim in HEAD_DIMS:
        config = default_tiles(arch, head_dim, 1)
        for shape in SHAPES:
            if head_dim in (64, 128) or shape.name in _CORE:
                yield Check(shape, "bf16", head_dim, config, "default", quantised=True)
    base = default_tiles(arch, 128, 1)
    for label, settings in _SETTINGS.items():
        config = dataclasses.replace(base, **settings)
        yield from _core("bf16", 128, config, label, quantised=True)
    yield from _core("fp16", 128, base, "default", quantised=True)
    if "pair" in arch.engines:
        yield from tiles_checks(arch, _BYTE_PAIRS, False, quantised=True)


def tiles_checks(
    arch: Architecture, tiles: Iterable[str], tiny: bool, *, quantised: bool = False
) -> Iterator[Check]:
    """Every shape with given tiles, at all head dims and dtypes; other settings at head dim 128.

    tiny       a few tokens each at head dim 64, for the emulated SM
    quantised  over a cache of 8 bits, at head dims 64 and 128
    """
    dims = (64,) if tiny else (64, 128) if quantised else HEAD_DIMS
    for name in tiles:
        for head_dim in dims:
            base = default_tiles(arch, head_dim, 1 if quantised else 2)
            base = with_tiles(base, tiles_of(name))
            if tiny:
                base = dataclasses.replace(base, decode_split_tokens=64)
            for dtype, shape in itertools.product(DTYPES if not tiny else DTYPES[:1], SHAPES):
                shape = shape.tiny() if tiny else shape
                yield Check(shape, dtype, head_dim, base, name, quantised)
            if head_dim == 128:
                for label, settings in _SETTINGS.items():
                    config = dataclasses.replace(base, **settings)
                    label = f"{name}, {label}"
                    yield from _core("bf16", head_dim, config, label, quantised=quantised)


RUN_TIME: dict[str, dict[str, Any]] = {
    "1:3": {"prefill_ctas": 1, "decode_ctas": 3},
    "5:2": {"prefill_ctas": 5, "decode_ctas": 2},
    "no splits": {"max_prefill_waves": 0, "decode_split_tokens": 0},
    "small splits": {"max_prefill_waves": 16, "decode_split_tokens": 128},
    "small splits, streams": {"decode_split_tokens": 128, "strategy": "streams"},
}
_SETTINGS = RUN_TIME | {strategy: {"strategy": strategy} for strategy in STRATEGIES[1:]}
# Of CTAs for both ops over 8 bits; two decode items of the second take more than one of prefill.
_BYTE_PAIRS = ("p128x128s2w8-d16x128s2w4-c1-v1", "p128x128s2w8-d16x192s2w4-c1-v1")


def tiny_checks(arch: Architecture) -> Iterator[Check]:
    """A few of them for the emulated SM, all of one variant."""
    config = dataclasses.replace(default_tiles(arch, 64), decode_split_tokens=64)
    for shape in SHAPES:
        yield Check(shape.tiny(), "bf16", 64, config, "default")


def tiny_byte_checks(arch: Architecture) -> Iterator[Check]:
    """The same of K and V of 8 bits, those of many features."""
    config = dataclasses.replace(default_tiles(arch, 64, 1), decode_split_tokens=64)
    for shape in SHAPES:
        if shape.name in _CORE:
            yield Check(shape.tiny(), "bf16", 64, config, "default", quantised=True)


def _core(
    dtype: Dtype, head_dim: int, config: PodConfig, label: str, *, quantised: bool = False
) -> Iterator[Check]:
    for shape in SHAPES:
        if shape.name in _CORE:
            yield Check(shape, dtype, head_dim, config, label, quantised)


def feasible(check: Check, arch: Architecture) -> bool:
    """Whether the check's config fits; a run-time setting may not fit a small part."""
    try:
        require_fits(check.config, arch, check.head_dim, 1 if check.quantised else 2)
        require_group(check.config, check.geometry)
    except ConfigInfeasibleError:
        return False
    return True
