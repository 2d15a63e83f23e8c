"""Long and extreme inputs for the op, as plain data: any kernel on any device can run them.

A case says what its logits look like; `make` draws the tensors, equal on every device. Keys lie
along the query's direction, so that the products of a logit share its sign: little cancels, and
the rounding of a logit is some ulp of itself. `accuracy_law.judge` has the verdict.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch

from pod_integrate.measure.batches import Case
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Dtype, Geometry

Pattern = Literal["level", "rising", "falling", "random", "both signs"]
Op = Literal["decode", "prefill"]

SHORT, LONG = 1 << 10, 1 << 17
_PAGE_SIZE = 16
_Q_HEADS = 2
# Times two heads: more packed rows than a decode tile of 16 takes.
_PREFILL_ROWS = 9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCase:
    """One request, two query heads on one KV head.

    op        decode has one query token, prefill 9 at the end of the keys
    keys      kv_len
    logit     the largest logit there is, about
    pattern   level: one key at `logit`, all others 0.5 below, so that roundings of sums drift
              rising, falling: 16 below to `logit` over the keys, so that the maximum changes in
              every tile or in none
              random: normal with a deviation of a quarter of `logit`; both signs: uniform
              between -`logit` and `logit`
    split     whether the kernel is to split the keys of the request; how is its caller's choice
    window    window_left; sink: a sink of `logit` in both heads
    """

    op: Op
    keys: int
    logit: float
    pattern: Pattern
    dtype: Dtype = "fp32"
    head_dim: int = 64
    split: bool = False
    window: int = -1
    logit_cap: float = 0.0
    sink: bool = False

    @property
    def name(self) -> str:
        """Unique among the cases below, fit for a test's id."""
        extras = {"window": self.window >= 0, f"cap{self.logit_cap:g}": self.logit_cap > 0}
        extras |= {"sink": self.sink, "split": self.split}
        words = [self.op, self.dtype, f"d{self.head_dim}", f"{self.keys}", f"{self.logit:g}"]
        words += [self.pattern.replace(" ", "-"), *(name for name, on in extras.items() if on)]
        return "-".join(words)

    @property
    def geometry(self) -> Geometry:
        """Of the call."""
        return Geometry.uniform(
            (_Q_HEADS, 1, self.head_dim),
            self.dtype,
            page_size=_PAGE_SIZE,
            window_left=self.window,
            logit_cap=self.logit_cap,
        )

    def features(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the call and of the reference."""
        sinks = torch.full((_Q_HEADS,), float(self.logit), device=device) if self.sink else None
        return {"window_left": self.window, "logit_cap": self.logit_cap, "sinks": sinks}

    def make(self, device: torch.device | None = None) -> Case:
        """The tensors; pages in random order, slots past the keys hold NaN."""
        device = device or torch.device("cpu")
        generator = torch.Generator().manual_seed(self.keys)
        q_len = _PREFILL_ROWS if self.op == "prefill" else 1
        pages = torch.randperm(-(-self.keys // _PAGE_SIZE), generator=generator).int()
        noise = _noise(self.keys, self.head_dim)
        direction = torch.where(noise[0] < 0, -1.0, 1.0)
        # q and k share the size of the logit, which keeps both within fp16.
        gain = max(1.0, abs(self.logit) * self.head_dim**-0.5) ** 0.5
        along = self._logits(generator) / (gain * self.head_dim**0.5)
        keys = direction * along[:, None] * (1 + 0.1 * noise.clamp(-3, 3))
        rows = 1 - torch.arange(q_len * _Q_HEADS).view(q_len, _Q_HEADS, 1) / 256
        dtype = TORCH_DTYPES[self.dtype]
        batch = HybridBatch.build(
            [q_len],
            [self.keys],
            page_indices=pages.to(device),
            page_starts=[0],
            page_size=_PAGE_SIZE,
        )
        k_cache, v_cache = (
            _paged(rows.to(device, dtype), pages) for rows in (keys, self._values(noise.flip(0)))
        )
        return Case((direction * gain * rows).to(device, dtype), k_cache, v_cache, batch)

    def _logits(self, generator: torch.Generator) -> torch.Tensor:
        shape, ramp = (self.keys,), torch.linspace(-16, 0, self.keys)
        if self.pattern == "level":
            level = torch.full(shape, self.logit - 0.5)
            level[0] = self.logit
            return level
        if self.pattern in ("rising", "falling"):
            return self.logit + (ramp if self.pattern == "rising" else ramp.flip(0))
        if self.pattern == "random":
            return self.logit / 4 * torch.randn(shape, generator=generator)
        return self.logit * (2 * torch.rand(shape, generator=generator) - 1)

    def _values(self, normal: torch.Tensor) -> torch.Tensor:
        # Even columns cancel: +1 in the first half of the keys, -1 in the second. Odd ones add up.
        halves = torch.where(torch.arange(self.keys) < self.keys // 2, 1.0, -1.0)[:, None]
        even = torch.arange(self.head_dim) % 2 == 0
        return torch.where(even, halves, torch.ones(1)) + normal / 8


@functools.lru_cache(maxsize=1)
def _noise(keys: int, head_dim: int) -> torch.Tensor:
    """Unit-normal [keys, D]; most of the time that a long case takes to make."""
    return torch.randn(keys, head_dim, generator=torch.Generator().manual_seed(head_dim))


def _paged(rows: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
    """[keys, D] as a cache of one head, [P, S, 1, D]: row i in slot i % S of page pages[i // S]."""
    keys, head_dim = rows.shape
    listed = rows.new_full((len(pages) * _PAGE_SIZE, head_dim), math.nan)
    listed[:keys] = rows
    cache = torch.empty_like(listed.view(-1, _PAGE_SIZE, 1, head_dim))
    cache[pages.long()] = listed.view_as(cache)
    return cache


def growth_cases(keys: int) -> Iterator[AccuracyCase]:
    """What an error that grows with the length would show in: the same list for every length."""
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16", "fp16")
    ops: tuple[Op, ...] = ("decode", "prefill")
    for op, split, (dtype, logit) in itertools.product(
        ops, (False, True), zip(dtypes, (1, 60, 8), strict=False)
    ):
        yield AccuracyCase(op=op, keys=keys, logit=logit, pattern="level", dtype=dtype, split=split)
    for op, split in itertools.product(ops, (False, True)):
        for pattern in ("rising", "falling"):
            yield AccuracyCase(
                op=op, keys=keys, logit=60, pattern=pattern, dtype="bf16", split=split
            )
    yield AccuracyCase(op="prefill", keys=keys, logit=8, pattern="level", window=keys * 3 // 4)
    yield AccuracyCase(op="decode", keys=keys, logit=8, pattern="level", logit_cap=30, dtype="bf16")
    yield AccuracyCase(op="decode", keys=keys, logit=8, pattern="level", sink=True, dtype="fp16")


def extreme_cases() -> Iterator[AccuracyCase]:
    """Logits from -1e6 to 1e6 in every pattern and dtype, split and not, at 2K keys and a tail."""
    patterns: tuple[Pattern, ...] = ("level", "rising", "falling", "random", "both signs")
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16", "fp16")
    ops: tuple[Op, ...] = ("decode", "prefill")
    logits = (-1e6, -1e3, -60.0, 1.0, 60.0, 1e3, 1e6)
    for n, (op, dtype, pattern, logit) in enumerate(
        itertools.product(ops, dtypes, patterns, logits)
    ):
        yield AccuracyCase(
            op=op, keys=2077, logit=logit, pattern=pattern, dtype=dtype, split=n % 2 == 0
        )


def feature_cases(head_dims: tuple[int, ...]) -> Iterator[AccuracyCase]:
    """Head dims, and window, cap and sinks under ordinary and extreme logits."""
    ops: tuple[Op, ...] = ("decode", "prefill")
    for op, head_dim in itertools.product(ops, head_dims):
        for dtype, logit in (("bf16", 60.0), ("fp16", 1e3)):
            yield AccuracyCase(
                op=op,
                keys=1000,
                logit=logit,
                pattern="random",
                dtype=dtype,  # type: ignore[arg-type]
                head_dim=head_dim,
            )
    features: tuple[dict[str, Any], ...] = (
        {"window": 0},
        {"window": 333},
        *({"logit_cap": cap} for cap in (0.5, 30.0, 1e6, 1e30)),
        {"sink": True},
        {"window": 100, "logit_cap": 30.0, "sink": True},
    )
    for op, feature, logit in itertools.product(ops, features, (8.0, 1e4, -1e4)):
        yield AccuracyCase(op=op, keys=1500, logit=logit, pattern="random", dtype="bf16", **feature)


def all_cases(
    *,
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16", "fp16"),
    head_dims: tuple[int, ...] = (32, 64, 96, 128, 256),
    longest: int = LONG,
) -> list[AccuracyCase]:
    """Every case that a kernel with these dtypes and head dims can run, `longest` keys at most.

    A case in a dtype that is missing is run in the first of `dtypes` instead.
    """
    lengths = [keys for keys in (SHORT, longest) if keys <= longest]
    found = {}
    for case in itertools.chain(
        *(growth_cases(keys) for keys in lengths), extreme_cases(), feature_cases(head_dims)
    ):
        if case.dtype not in dtypes:
            case = dataclasses.replace(case, dtype=dtypes[0])
        found[case.name] = case
    return list(found.values())
