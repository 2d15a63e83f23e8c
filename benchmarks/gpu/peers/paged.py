"""Peers that read a paged cache as it lies and take any batch: several chunks, ragged decodes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.peers import fa3, flashinfer
from benchmarks.gpu.peers.flashinfer import Make
from benchmarks.gpu.speed.cases import Part

# `peers` builds FlashInfer's kernels for this head dim.
_TRIED_DIM = 128
# Those that FlashInfer dispatches over, up to what our kernel has.
_FLASHINFER_DIMS = (64, 128, 256)
_HOPPER = "_sm90"


class Paged(NamedTuple):
    """`make` plans a batch and returns the call to time; it answers the rows of `part`.

    module  how the name of FlashInfer's compiled kernel begins; "" needs no build
    hopper  whether it is the one compiled for Hopper alone
    whole   of those that answer all rows: whether it is another kernel than those of one op
    """

    name: str
    part: Part
    make: Make
    module: str = ""
    hopper: bool = False
    whole: bool = False


_PREFILL, _DECODE = "batch_prefill_with_kv_cache_", "batch_decode_with_kv_cache_"
_ATTENTION = "batch_attention_with_kv_cache_"
PAGED = (
    Paged("flashinfer prefill fa2", "prefill", flashinfer.prefill("fa2", "prefill"), _PREFILL),
    Paged(
        "flashinfer prefill fa3", "prefill", flashinfer.prefill("fa3", "prefill"), _PREFILL, True
    ),
    Paged("sgl_kernel fa3 prefill", "prefill", fa3.attention("prefill")),
    # With tensor cores it is the prefill kernel.
    Paged("flashinfer decode", "decode", flashinfer.decode(True), _PREFILL),
    Paged("flashinfer decode, no tensor cores", "decode", flashinfer.decode(False), _DECODE),
    Paged("sgl_kernel fa3 decode", "decode", fa3.attention("decode")),
    Paged("flashinfer BatchAttention", "all", flashinfer.batch_attention, _ATTENTION, whole=True),
    Paged("flashinfer prefill fa2, all rows", "all", flashinfer.prefill("fa2", "all"), _PREFILL),
    Paged(
        "flashinfer prefill fa3, all rows", "all", flashinfer.prefill("fa3", "all"), _PREFILL, True
    ),
    Paged("sgl_kernel fa3, all rows", "all", fa3.attention("all")),
)


def ready(folder: Path, head_dim: int, *, compiling: bool) -> list[Paged]:
    """Those of an installed library that run at once, or after minutes of `compiling`.

    At head dim 128 what `peers` has tried with success, if it ran; at another what FlashInfer
    finds compiled.
    """
    tried, saved = None, folder / "peers.json"
    if saved.exists() and head_dim == _TRIED_DIM:
        tried = json.loads(saved.read_text())["peers"]
    found = []
    for peer in PAGED:
        if importlib.util.find_spec(peer.name.split()[0]) is None:
            continue
        if peer.module and head_dim not in _FLASHINFER_DIMS:
            continue
        if not peer.module or compiling:
            found.append(peer)
        elif tried is not None:
            if tried.get(peer.name, {}).get("outcome") == "ok":
                found.append(peer)
        elif compiled(peer, head_dim):
            found.append(peer)
    return found


def compiled(peer: Paged, head_dim: int) -> bool:
    """Whether FlashInfer has the kernel of a peer, compiled on this machine or brought along."""
    from flashinfer.jit import env

    name = f"{peer.module}*_head_dim_qk_{head_dim}_*/*.so"
    folders = Path(env.FLASHINFER_JIT_DIR), Path(env.FLASHINFER_AOT_DIR)
    return any(
        (_HOPPER in library.stem) == peer.hopper
        for folder in folders
        for library in folder.glob(name)
    )
