"""`python -m benchmarks.gpu PART [options]`; the default part is first-contact."""

from __future__ import annotations

import importlib
import signal
import sys

from pod_integrate.errors import PodAttentionError

# Part -> its room, and what it does.
PARTS = {
    "first-contact": (
        "visit",
        "all of it once: machine report, conformance, checks, sanitizer, co-residency",
    ),
    "conformance": ("correctness", "every PTX wrapper on the GPU against the emulated SM"),
    "checks": (
        "correctness",
        "the op against a float64 reference: shapes, features, strategies",
    ),
    "peers": ("peers", "FlashInfer and torch built, tried and checked on a tiny batch"),
    "numbers": ("speed", "the published cases: ours, FlashInfer, torch; distance to the floor"),
    "corun": ("profile", "share of time in which an SM held both ops, and a picture of it"),
    "sweep": ("speed", "tunables of one case, measured: tuned, default and best of all"),
    "tune": ("speed", "the tuner's own search on a case: default against promoted"),
    "hf": (
        "engines",
        "transformers' generate_batch: `pod` against stock, tokens and logits",
    ),
    "sglang": (
        "engines",
        "SGLang end to end: `pod` against stock, mixed chunks on and off",
    ),
    "tp": (
        "engines",
        "several GPUs: `pod` by tensor and data parallelism against stock, one table for all",
    ),
    "truth": ("truth", "every config of a grid on ragged steps: what searches are judged by"),
    "tables": ("shipped", "tables of tuned configs that ship: what people serve, each proven"),
    "traces": ("engines", "a server's traces against torch's profiler, and what tracing costs"),
    "serving": ("engines", "public loads end to end: what mixing pays, where step time goes"),
    "live": ("engines", "tuning on live steps of a server: its gain by bucket, and its cost"),
    "real": ("engines", "trained weights in SGLang: answers and perplexity, fp8 KV cache as well"),
    "spec": ("engines", "SGLang speculating: tokens and accepted drafts, `pod` against stock"),
    "features": ("engines", "SGLang with what people turn on: answers of `pod` and of stock"),
    "fp8": ("speed", "a cache of 8 bits against bf16: long decodes and hybrid batches"),
    "host": ("speed", "what a layer's call costs the host, and how late the device is for it"),
    "grammar": (
        "speed",
        "vLLM's public batches: default config against the best serial pair of anybody",
    ),
    "power": ("speed", "what a batch draws: watts, clock and joules of each op and of both"),
    "tiles": ("speed", "other tiles against the default, calls in turns: hybrids and each op"),
    "small": ("speed", "small batches in CTAs that run both ops, against the default's tiles"),
    "versus": ("speed", "source trees in turns: is a changed kernel as fast as before"),
    "walls": ("walls", "what an SM does at most: copies by size, bytes in flight, L2, products"),
    "record": ("visit", "file the results of a visit: JSON, headlines, docs/gpu.md"),
    "ncu": ("profile", "Nsight Compute's metrics of one case"),
    "once": ("profile", "one case a few times, for a profiler or a sanitizer to watch"),
    "prebuild": (
        "visit",
        "compile the variants that the other parts use, in parallel; FlashInfer's kernels",
    ),
}


def main() -> None:
    """Run the part that the first argument names."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        for name, (_, text) in PARTS.items():
            print(f"  {name:14s} {text}")
        return
    part = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "first-contact"
    if part not in PARTS:
        sys.exit(f"part {part!r} is unknown; known are {', '.join(PARTS)}")
    # So that parts which started processes end them when a time limit ends the part.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{part}: ended by SIGTERM"))
    try:
        module = f"benchmarks.gpu.{PARTS[part][0]}.{part.replace('-', '_')}"
        importlib.import_module(module).main(arguments)
    except PodAttentionError as error:
        sys.exit(f"{part}: {error}")


if __name__ == "__main__":
    main()
