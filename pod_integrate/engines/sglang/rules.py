"""What of a server the backend does not serve: the feature, when it is there, the way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from pod_integrate.devices.cuda.device import LIMITS
from pod_integrate.engines.sglang.facts import EngineFacts
from pod_integrate.engines.sglang.windows import WINDOW_POOL, is_served

Facts = TypeVar("Facts")
INT32_MAX = 2**31 - 1
MAX_CACHE_BYTES = LIMITS.cache_bytes


@dataclasses.dataclass(frozen=True)
class Rule(Generic[Facts]):
    """One feature.

    own      what to do with flags
    serving  other backends that serve it, best first
    flag     that names one of these
    """

    feature: str
    applies: Callable[[Facts], bool]
    got: Callable[[Facts], object]
    own: str | Callable[[Facts], str] = ""
    serving: tuple[str, ...] = ()
    flag: str = "--attention-backend"


def _fewer_requests(facts: EngineFacts) -> str:
    fits = INT32_MAX // max(1, facts.table_columns) - 1
    return f"set --max-running-requests to {fits} or less" if fits > 0 else "lower --context-length"


def _above(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit


ENGINE: tuple[Rule[EngineFacts], ...] = (
    Rule(
        "multi-head latent attention (MLA)",
        lambda f: f.mla,
        lambda f: "an MLA model",
        "leave --attention-backend unset",
        ("flashinfer", "trtllm_mla", "triton", "torch_native"),
    ),
    Rule(
        "encoder-decoder models",
        lambda f: f.encoder_decoder,
        lambda f: "a model with cross attention",
        serving=("flashinfer", "torch_native"),
    ),
    Rule(
        "ALiBi",
        lambda f: f.alibi,
        lambda f: "a model with slopes, which SGLang passes on an Ascend device only",
        "serve it with transformers and its own attention: other backends of SGLang leave the "
        "slopes out and answer differently",
    ),
    # Gemma 3 makes its masks where `triton` alone is the backend: with another, or with two, it
    # attends images causally without a word.
    Rule(
        "image tokens that see each other",
        lambda f: f.masked_images,
        lambda f: "a multi-modal model that masks them so",
        "drop --enable-multimodal",
        ("triton",),
    ),
    Rule(
        "diffusion language models",
        lambda f: f.dllm is not None,
        lambda f: f"--dllm-algorithm {f.dllm}",
        serving=("flashinfer",),
    ),
    Rule(
        "float32 on a GPU",
        lambda f: f.dtype == torch.float32 and f.dtype not in f.limits.dtypes,
        lambda f: f"dtype {f.dtype}",
        "pass --dtype bfloat16",
        ("triton", "torch_native"),
    ),
    Rule(
        "this KV cache dtype",
        lambda f: f.kv_cache_dtype not in (f.dtype, torch.float8_e4m3fn),
        lambda f: f"{f.kv_cache_dtype} for a {f.dtype} model",
        "pass --kv-cache-dtype fp8_e4m3 or auto",
        ("flashinfer", "triton", "torch_native"),
    ),
    Rule(
        "the unified memory pool",
        lambda f: f.unified_memory,
        lambda f: "--enable-unified-memory",
        "drop the flag",
        ("triton",),
    ),
    Rule(
        "sparse host-backed attention (HiSparse)",
        lambda f: f.hisparse,
        lambda f: "--enable-hisparse",
        "drop the flag",
    ),
    Rule(
        "speculation over the hybrid sliding-window pool",
        lambda f: f.pool == WINDOW_POOL and f.speculation is not None,
        lambda f: f.pool,
        "pass --disable-hybrid-swa-memory, which gives the model the plain pool",
        ("triton",),
    ),
    Rule(
        "this KV pool",
        lambda f: not is_served(f.pool),
        lambda f: f.pool,
        "leave --attention-backend unset",
        ("triton",),
    ),
    Rule(
        "this KV layout",
        lambda f: f.pool_layout != "nhd",
        lambda f: f.pool_layout,
        "unset SGLANG_USE_HND_KVCACHE",
        ("trtllm_mha",),
    ),
    Rule(
        "this many entries of the slot table",
        lambda f: _above(f.table_rows * f.table_columns, f.limits.list_entries),
        lambda f: (
            f"{f.table_rows} rows (--max-running-requests and padding) of {f.table_columns} tokens "
            f"(--context-length), above {INT32_MAX}"
        ),
        _fewer_requests,
        ("flashinfer", "triton"),
    ),
    Rule(
        "contexts this long",
        lambda f: f.table_columns > INT32_MAX,
        lambda f: f"--context-length {f.table_columns}, above {INT32_MAX}",
        "lower --context-length",
    ),
    Rule(
        "a KV pool this large",
        lambda f: f.pool_slots > INT32_MAX or _above(f.pool_bytes, f.limits.cache_bytes),
        lambda f: (
            f"{f.pool_slots} slots and {f.pool_bytes} bytes of keys in a layer, above {INT32_MAX} "
            f"or {MAX_CACHE_BYTES}"
        ),
        "lower --max-total-tokens",
    ),
    Rule(
        "decode context parallelism",
        lambda f: f.dcp_size > 1,
        lambda f: f"--dcp-size {f.dcp_size}",
        "set it to 1",
    ),
    Rule(
        "context parallelism",
        lambda f: f.cp_size > 1,
        lambda f: f"--attn-cp-size {f.cp_size}",
        "set it to 1",
        ("fa3",),
    ),
    Rule(
        "prefill-decode multiplexing",
        lambda f: f.pdmux,
        lambda f: "--enable-pdmux",
        "drop the flag (POD overlaps the two inside one launch)",
        ("fa3",),
    ),
    Rule(
        "two-batch overlap",
        lambda f: f.two_batch_overlap,
        lambda f: "--enable-two-batch-overlap",
        "drop the flag",
    ),
    Rule(
        "multi-item scoring",
        lambda f: f.mis,
        lambda f: "--enable-mis",
        "drop the flag",
        ("flashinfer",),
    ),
    Rule(
        "full prefill graphs",
        lambda f: f.prefill_graph == "full",
        lambda f: "--cuda-graph-backend-prefill full",
        "pass `breakable` or `disabled`",
    ),
    Rule(
        "CPU graphs",
        lambda f: f.torch_compile and not f.has_graphs,
        lambda f: "--enable-torch-compile",
        "drop the flag",
    ),
    # Dynamo would trace the attention of decode steps of up to --torch-compile-max-bs requests,
    # which nobody has run.
    Rule(
        "a compiled model on a GPU",
        lambda f: f.torch_compile and f.has_graphs,
        lambda f: "--enable-torch-compile",
        "drop the flag",
    ),
    # A prompt's last chunk may be one token, which is attended as a decode step is: other bits
    # than inside a longer chunk. Where a cut falls depends on the other requests.
    Rule(
        "deterministic inference of prompts in chunks",
        lambda f: f.deterministic and f.chunked_prefill_size != -1,
        lambda f: (
            "--enable-deterministic-inference with --chunked-prefill-size "
            f"{f.chunked_prefill_size or 'unset'}"
        ),
        "pass --chunked-prefill-size -1",
        ("fa3", "triton"),
    ),
)
