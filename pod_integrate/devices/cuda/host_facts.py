"""What the planner's library says of plans and tiles; nothing is built or loaded before a call."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from pod_integrate.builds import native
from pod_integrate.devices.cuda.architectures import PrefillEngine
from pod_integrate.terms.config import PodConfig, pack_config

_ENGINES: tuple[PrefillEngine, ...] = ("mma", "wgmma", "pair")
# Name of a field -> (its first int32 word, how many it has).
Fields = Mapping[str, tuple[int, int]]


class HostFacts(msgspec.Struct, frozen=True):
    """Facts of kernels/cuda that Python needs too.

    header, item, merge  fields of PlanHeader, Item and MergeBlock, in order, none left out
    record_words         int64 words of a CtaRecord
    least_split          keys below which the planner makes no decode item for a fuller GPU
    decode_rows          query rows of a decode tile
    merge_rows           of a MergeBlock, at most
    head_dims            that the kernel is compiled for
    """

    header: dict[str, tuple[int, int]]
    item: dict[str, tuple[int, int]]
    merge: dict[str, tuple[int, int]]
    record_words: int
    least_split: int
    decode_rows: int
    merge_rows: int
    head_dims: list[int]


@functools.lru_cache(maxsize=1)
def facts() -> HostFacts:
    """The library's own words; builds it on first use. Raises BuildError as native.load."""
    return msgspec.json.decode(str(native.load("host").describe()), type=HostFacts)


def words_of(fields: Fields) -> int:
    """Length of a struct in int32 words."""
    return max(first + count for first, count in fields.values())


def cta_smem_bytes(
    config: PodConfig, head_dim: int, engine: PrefillEngine, kv_bytes: int = 2
) -> tuple[int, int, int]:
    """Dynamic shared memory of a CTA that runs (prefill, decode, what comes in a fused launch)."""
    number = _ENGINES.index(engine)
    prefill, decode, fused = native.load("host").cta_smem(
        pack_config(config), head_dim, kv_bytes, number
    )
    return int(prefill), int(decode), int(fused)
