"""A config's answers beside the default's, on fresh random inputs like those of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pod_integrate.devices.base import Device
from pod_integrate.devices.call import Attention, Call, Result
from pod_integrate.errors import MismatchError
from pod_integrate.measure.accuracy import require_alike
from pod_integrate.measure.batches import Case
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.scalars import Scalars

Lengths = tuple[list[int], list[int]]

# More query rows than this find no other bug; longer chunks are cut to their last rows.
_MOST_TOKENS = 2048
# Of keys, and of values as much: requests share one pool, as they share prefixes on a server.
_MOST_CACHE_BYTES = 64 << 20
# With less memory free inputs have a quarter of the rows and keys, and with less than the least
# nothing is allocated: what verifying takes is a small part of what it leaves to the server.
FLOOR_BYTES, LEAST_BYTES = 1 << 30, 384 << 20
_SMALLER = 4


class NoRoomError(Exception):
    """There is too little memory now to try anything beside the server."""


def verify(
    device: Device, geometry: Geometry, config: PodConfig, lengths: Lengths, *, seed: int
) -> None:
    """Launch `config` and the default on one batch of `lengths`; runs on the current stream.

    Raises MismatchError where their answers differ by more than the op's pass rule allows, and
    NoRoomError before anything is allocated where the device has less than LEAST_BYTES to spare.
    """
    spare = device.spare_bytes()
    if spare is not None and spare < LEAST_BYTES:
        raise NoRoomError(
            f"{spare >> 20} MiB of device memory are free, {LEAST_BYTES >> 20} needed"
        )
    smaller = 1 if spare is None or spare >= FLOOR_BYTES else _SMALLER
    case = fresh_case(geometry, lengths, device=device, seed=seed, smaller=smaller)
    scalars = Scalars(geometry.head_dim**-0.5, geometry.window_left, geometry.logit_cap)
    default = device.attention(geometry)

    def again(values: torch.Tensor, other: Scalars) -> Result:
        return _attend(default, case._replace(v_cache=values), other)

    expected = _attend(default, case, scalars)
    got = _attend(device.attention(geometry, config), case, scalars)
    try:
        require_alike(case, got, expected, again, scalars)
    except MismatchError as error:
        q_lens, kv_lens = (side[:16] for side in lengths)
        raise MismatchError(
            f"{config.short()} on q_lens {q_lens} kv_lens {kv_lens}, seed {seed}: {error}"
        ) from error


def fresh_case(
    geometry: Geometry, lengths: Lengths, *, device: Device, seed: int, smaller: int = 1
) -> Case:
    """Unit-normal q, k, v of a batch at most as large as `lengths`; requests share their pages.

    Pages of a request are in random order; where two requests share some they stand elsewhere.

    smaller  divides what rows and keys may take
    """
    q_lens, kv_lens = _bounded(lengths, geometry, smaller)
    place, size = device.place, geometry.page_size
    generator = torch.Generator(place).manual_seed(seed)
    width = max((-(-n // size) for n in kv_lens), default=0) + 1
    order = torch.randperm(width, generator=generator, device=place, dtype=torch.int32)
    shifts = torch.randint(width, (len(kv_lens), 1), generator=generator, device=place)
    places = (torch.arange(width, device=place) + shifts) % width
    shape = (width, size, geometry.num_kv_heads, geometry.head_dim)
    q_shape = (sum(q_lens), geometry.num_q_heads, geometry.head_dim)
    dtype, kv_dtype = TORCH_DTYPES[geometry.dtype], TORCH_DTYPES[geometry.kv_dtype]
    # Drawn in the dtype of q: torch draws no numbers of 8 bits.
    q, keys, values = (
        torch.randn(wanted, generator=generator, device=place, dtype=dtype).to(kept)
        for wanted, kept in ((q_shape, dtype), (shape, kv_dtype), (shape, kv_dtype))
    )
    batch = HybridBatch.build(
        q_lens,
        kv_lens,
        page_indices=order[places].contiguous(),
        page_starts=device.upload([b * width for b in range(len(kv_lens))]),
        page_size=size,
    )
    return Case(q, keys, values, batch)


def _attend(attention: Attention, case: Case, scalars: Scalars) -> Result:
    # What a kernel leaves out must not look like the answer that memory held before.
    out = torch.full_like(case.q, math.nan)
    lse = torch.full(case.q.shape[:2], math.nan, dtype=torch.float32, device=case.q.device)
    attention(Call(*case, scalars, None, out, lse))
    return Result(out, lse)


def _bounded(lengths: Lengths, geometry: Geometry, smaller: int) -> Lengths:
    """`lengths` cut to the rows and keys that verification may take memory for."""
    row = geometry.num_kv_heads * geometry.head_dim * TORCH_DTYPES[geometry.kv_dtype].itemsize
    most_keys = max(1, _MOST_CACHE_BYTES // smaller // row)
    return (
        _cut(lengths[0], most_keys, _MOST_TOKENS // smaller),
        [min(n, most_keys) for n in lengths[1]],
    )


def _cut(q_lens: Sequence[int], most: int, tokens: int) -> list[int]:
    share = min(1.0, tokens / max(1, sum(q_lens)))
    # A decode stays one; chunks keep their proportions, and stay chunks.
    return [min(n, most, max(2, int(n * share))) for n in q_lens]
