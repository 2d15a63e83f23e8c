"""Rows of the README's table of numbers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the README.

    `{name}` stands for a headline's value, `{range:column}` for the least and the most of a column
    of the cases in gpu_numbers.json; what is not measured is "-" in its place.
    """

    what: str
    value: str
    context: str


SIX = (
    Row(
        "A hybrid batch in one launch, against our prefill kernel, then our decode kernel",
        "{gpu.fused_vs_serial_geomean}, {range:fused_vs_serial}",
        "H100, bf16, geometric mean and range of 12 published shapes, each with its best config of "
        "the run (untuned: {gpu.default_vs_serial_geomean}). Against the best serial pair of "
        "anybody's kernels over a paged cache {gpu.fused_vs_best_serial_geomean} "
        "({range:fused_vs_best_serial}); against FlashInfer's BatchPOD "
        "{gpu.fused_vs_flashinfer_batchpod_geomean} ({range:fused_vs_batchpod}). On an H200, "
        "today's kernel, untuned, against that serial pair: {h200.default_vs_best_serial_geomean} "
        "({h200.default_vs_best_serial_min} to {h200.default_vs_best_serial_max}), against "
        "BatchPOD {h200.default_vs_flashinfer_batchpod_geomean}, SGLang's build of "
        "FlashAttention-3 among all. Over vLLM's public batches, most of one op, the "
        "default is at {h200.public_grammar_geomean} of the quickest kernels, at "
        "{h200.public_grammar_usual_geomean} with 32/8 heads of 128 "
        "([docs/gpu.md](docs/gpu.md#vllms-public-batches))",
    ),
    Row(
        "SGLang on `pod` with mixed chunks against SGLang on `fa3` without, as people run it",
        "{serving.speedup_vs_unmixed_fa3_min}, {serving.speedup_vs_unmixed_fa3_max}",
        "least and most of {serving.settings} settings, output tokens/s, saturated, on an H200: "
        "models of their real depth with random weights, long prompts (arXiv's 10K beside answers "
        "of 470 tokens, the paper's 16.5K in all) and Azure's conversations, each side at the "
        "best chunk tried "
        "([docs/gpu.md](docs/gpu.md#serving) lists them); ITL p99 is "
        "{serving.itl_p99_ratio_geomean} of `fa3`'s. Against `fa3` with mixed chunks "
        "{serving.speedup_vs_mixed_fa3_min} and more. One stretch per setting, two of the "
        "conversations",
    ),
    Row(
        "transformers' `generate_batch` on `pod` against `sdpa`",
        "{gpu.generate_batch_speedup_vs_sdpa}",
        "tokens/s on an H100: a bf16 Llama of 8 layers with random weights, 48 ragged prompts. "
        "`sdpa` copies the paged cache in every step, `pod` reads it where it lies. Error of bf16 "
        "logits against fp32: {gpu.logit_error_vs_sdpa} of `sdpa`'s",
    ),
    Row(
        "Attention time after tuning on live steps, against the default config",
        "{live.gpu_speedup_smollm2}, {live.gpu_speedup_llama8b}",
        "SGLang on an H200 that tuned itself for two minutes while it served, confirmed by a fresh "
        "engine: SmolLM2-135M (heads of 64, prompts of 2K: steps so short that the host is late), "
        "and the shape of Llama-3-8B (random weights), whose default is near the best that the "
        "tuner finds. Defaults of then: batches heavy in prefill, most of the promoted buckets, "
        "have tiles of their own since. All attention time counted: others than promoted are 1. "
        "Recording and experiments at their default "
        "share cost {live.gpu_overhead_pct} of the output tokens/s. On two CPU cores the demo "
        "gains {demo.attention_speedup_tuned_vs_default}",
    ),
    Row(
        "Requests with the same greedy tokens as SGLang's `torch_native`",
        "{sglang.requests_token_equal} of {sglang.requests_compared}",
        "fp32 on a CPU, over all server variants; so do {hf.models_token_equal} of "
        "{hf.models_compared} models of transformers. On an H200 the op passed "
        "{gpu.tests_passed} checks, {gpu.accuracy_cases} of them long or extreme inputs; in bf16 "
        "near ties flip there, as they do between stock backends",
    ),
    Row(
        "Attention time in a GPU server's traces, off torch's profiler by",
        "{trace.gpu_time_agreement_pct}",
        "H200, SGLang, eager and captured steps of a Llama of 16 layers with random weights. "
        "Tracing at its default share costs at most {trace.gpu_overhead_most_pct} of the output "
        "tokens/s (95 % interval of two engines in turns)",
    ),
)
