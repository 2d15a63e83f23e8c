"""What each headline number is, in words; by section, in the order in which documents show them.

A name in results/headline.json that is missing here fails a test; one that is here and has no
result is shown as "-".
"""

from __future__ import annotations

import dataclasses

SECTIONS: dict[str, dict[str, str]] = {
    "Same answers": {
        "sglang.requests_token_equal": "Requests whose greedy tokens equal SGLang's `torch_native`",
        "sglang.requests_compared": "... of requests compared, over all server variants",
        "sglang.model_families_equal": "Families of small random models whose tokens equal stock's",
        "sglang.model_families_tried": "... of families tried in SGLang on a CPU",
        "sglang.model_families_refused": "... of them refused at start-up, an alternative named",
        "hf.models_token_equal": "transformers models whose greedy tokens equal stock's",
        "hf.models_compared": "... of models compared, each on every version",
        "hf.scenarios_passed": "Scenarios of transformers' continuous-batching suite that pass",
        "hf.scenarios_run": "... of scenarios run",
        "hf.versions": "Versions of transformers in the rows above",
        "op.accuracy_cases": "Long and extreme inputs on a CPU, within the law of accuracy",
        "op.lse_error_ulp_max_128k": "... largest error of the LSE at 128K keys",
        "gpu.tests_passed": "Checks of the op passed on a GPU, none failed",
        "gpu.accuracy_cases": "... of them long and extreme inputs, judged by the law of accuracy",
        "gpu.lse_error_ulp_max_128k": "... largest error of the LSE at 128K keys",
        "gpu.wrappers_equal": "PTX wrappers that compute on a GPU what they do emulated",
        "gpu.wrappers_total": "... of wrappers",
        "kernel.emulated_cases": "Cases of the GPU kernel on emulated SMs that match float64",
        "kernel.mutations_caught": "Bugs planted in the GPU kernel that its tests catch",
        "kernel.mutations_total": "... of bugs planted",
        "real.requests_token_equal": "Answers of a trained model whose tokens equal stock's, CPU",
        "real.requests_compared": "... of answers compared, SGLang and transformers",
        "real.cpu_perplexity_ratio": "Its perplexity of a text on POD over stock's, CPU",
        "real.gpu_requests_token_equal": "... in SGLang on a GPU, in bf16",
        "real.perplexity_ratio": "Its perplexity of a text on POD over stock's, by prefill",
        "real.decode_perplexity_ratio": "... by decode steps, most of them hybrid",
        "fp8.perplexity_ratio": "... on POD over a cache of 8 bits, by prefill",
        "fp8.decode_perplexity_ratio": "... by decode steps",
        "fp8.stock_perplexity_ratio": "... of stock over its own cache of 8 bits",
        "gpu.logit_error_vs_sdpa": "transformers on a GPU: error of bf16 logits over `sdpa`'s",
        "gpu.differences_near_ties": "... first tokens unlike `sdpa`'s that are near ties",
    },
    "The kernel on a GPU": {
        "gpu.fused_vs_serial_geomean": "Best fused config against our best serial, 12 cases",
        "gpu.fused_vs_best_serial_geomean": "... against anybody's best serial, paged cache",
        "gpu.fused_vs_contiguous_serial_geomean": "... contiguous ones too (without cuDNN)",
        "gpu.fused_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "gpu.fused_vs_flashinfer_batchattention_geomean": "... against FlashInfer's BatchAttention",
        "gpu.default_vs_serial_geomean": "Default fused config against our best serial",
        "gpu.default_vs_best_serial_geomean": "... against anybody's best serial, paged cache",
        "gpu.default_vs_best_serial_min": "... in its worst case",
        "gpu.default_vs_best_serial_max": "... in its best case",
        "gpu.default_vs_contiguous_serial_geomean": "... contiguous ones too (without cuDNN)",
        "gpu.default_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "gpu.default_vs_flashinfer_batchattention_geomean": "... its BatchAttention",
        "gpu.grid_fused_vs_serial_geomean": "Best fused against our best serial, paper's sweep",
        "gpu.grid_fused_vs_serial_below_1": "... share of cases where that serial is faster",
        "gpu.grid_fused_vs_best_serial_geomean": "... against anybody's best serial (no cuDNN)",
        "gpu.grid_fused_vs_best_serial_below_1": "... share of cases where that serial is faster",
        "gpu.grid_fused_vs_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "gpu.grid_fused_vs_batchpod_below_1": "... share of cases where BatchPOD is faster",
        "gpu.grid_default_vs_best_serial_geomean": "Default against anybody's best serial there",
        "gpu.grid_below_098_pct": "... cases in which it is below 0.98x",
        "gpu.grid_default_vs_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "gpu.public_grammar_geomean": "Default config, vLLM's public batches, best serial pair",
        "gpu.public_grammar_usual_geomean": "... those of 32/8 heads of 128",
        "gpu.public_grammar_min": "... in the worst batch",
        "gpu.public_grammar_below_098_pct": "... batches in which it is below 0.98x",
        "gpu.floor_ratio_geomean": "Best fused config, time above the roofline floor",
        "h200.fused_vs_serial_geomean": "An H200: best fused config against our best serial",
        "h200.fused_vs_best_serial_geomean": "... against anybody's best serial, paged cache",
        "h200.fused_vs_contiguous_serial_geomean": "... contiguous ones too, cuDNN among them",
        "h200.fused_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "h200.fused_vs_flashinfer_batchattention_geomean": "... against its BatchAttention",
        "h200.default_vs_serial_geomean": "An H200: default config against our best serial",
        "h200.default_vs_best_serial_geomean": "... against anybody's best serial, paged cache",
        "h200.default_vs_best_serial_min": "... in its worst case",
        "h200.default_vs_best_serial_max": "... in its best case",
        "h200.default_vs_contiguous_serial_geomean": "... contiguous ones too, cuDNN among them",
        "h200.default_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
        "h200.default_vs_flashinfer_batchattention_geomean": "... against its BatchAttention",
        "h200.grid_default_vs_best_serial_geomean": "... anybody's best serial, paper's sweep",
        "h200.grid_below_098_pct": "... cases in which it is below 0.98x",
        "h200.grid_default_vs_batchpod_geomean": "... against FlashInfer's BatchPOD there",
        "h200.public_grammar_geomean": "... vLLM's public batches, anybody's best serial pair",
        "h200.public_grammar_usual_geomean": "... those of 32/8 heads of 128",
        "h200.public_grammar_min": "... in the worst batch",
        "h200.public_grammar_below_098_pct": "... batches in which it is below 0.98x",
        "h200.prefill_vs_fa3_geomean": "... our prefill alone against FlashInfer's FA3",
        "h200.sustained_vs_serial_geomean": "... default against our serial, calls without a pause",
        "h200.joules_serial_over_default_geomean": "... joules of our serial over the default's",
        "h200.decode_floor_ratio": "... our decode alone, time above the floor",
        "h200.floor_ratio_geomean": "... best fused config, time above the floor",
        "gpu.corun_share": "Busy time in which an SM held both ops, mean of the cases",
        "gpu.speed_after_numerics_geomean": "Speed of the kernel after its numerics became exact",
        "gpu.speed_after_house_geomean": "Speed of the kernel after the move into rooms",
        "gpu.speed_after_plan_geomean": "... after the planner cut prefill only where it pays",
        "gpu.speed_after_wide_geomean": "... after decode had moved to `wgmma`",
        "gpu.speed_after_start_geomean": "... after merges were dependent launches, public batches",
        "fp8.decode_time_vs_bf16": "Time of decodes at 32K over a cache of 8 bits against bf16",
        "fp8.hybrid_time_vs_bf16": "Time of hybrid batches over a cache of 8 bits against bf16",
        "kernel.variants_built": "Variants of the GPU kernel built, six architectures together",
        "kernel.variants_with_spills": "... of them with register spills",
        "kernel.model_agreements": "Published comparisons that the cost model reproduces",
        "kernel.model_checks": "... of comparisons checked",
    },
    "The kernel on a CPU": {
        "op.sdpa_loop_ratio_min": "Our op against a loop of torch SDPA, worst hybrid batch",
        "op.sdpa_loop_ratio_median": "... median hybrid batch",
        "cpu.hybrid_vs_vllm_fp32": "Our op against vLLM's CPU attention, hybrid batches, fp32",
        "cpu.hybrid_vs_vllm_bf16": "... bf16",
        "cpu.min_vs_vllm_fp32": "... worst batch, prefills and decodes alone included, fp32",
    },
    "Engines": {
        "tp.gpus_run": "Most GPUs that one SGLang server on `pod` ran on",
        "tp.tokens_per_s_ratio": "... its throughput against `fa3` there, both mixed",
        "advise.error_median_pct": "Tokens/s that `pod-attn advise` says, off served loads by",
        "advise.error_worst_pct": "... at worst",
        "serving.settings": "Models, loads and caches served end to end, saturated",
        "serving.speedup_vs_unmixed_fa3_geomean": "`pod`, mixed, against `fa3` that does not mix",
        "serving.speedup_vs_unmixed_fa3_min": "... least of them",
        "serving.speedup_vs_unmixed_fa3_max": "... most",
        "serving.speedup_vs_mixed_fa3_geomean": "... against `fa3` that mixes",
        "serving.speedup_vs_mixed_fa3_min": "... least of them",
        "serving.share_of_perfect_overlap": "... of what perfect overlap alone would add to that",
        "serving.itl_p99_ratio_geomean": "... p99 of ITL over that of `fa3` that does not mix",
        "serving.step_model_error_pct": "Time of a served step that advice's model says, off by",
        "gpu.sglang_saturated_vs_fa3": "SGLang on POD against the better of two `fa3` servers",
        "gpu.generate_batch_speedup_vs_sdpa": "transformers' `generate_batch` against `sdpa`, GPU",
        "hf.generate_batch_speedup_vs_sdpa": "transformers' `generate_batch` against `sdpa`, CPU",
        "hf.gather_bytes_avoided_per_step": "... K/V copies per step that `sdpa` makes, POD not",
    },
    "Speculative decoding": {
        "spec.tokens_equal_pct": "SGLang speculating on `pod`: tokens as on `fa3`, GPU",
        "spec.accept_length_ratio": "... tokens per verify step against `fa3`'s",
        "spec.accept_length_ratio_control": "... of `fa3` in other batches against itself",
    },
    "Traces and tuner": {
        "trace.gpu_time_agreement_pct": "Attention time in a GPU server's traces",
        "trace.gpu_overhead_pct": "... what tracing costs",
        "trace.gpu_overhead_most_pct": "... at most, with 95 % confidence",
        "live.gpu_speedup_smollm2": "Attention after two minutes of live tuning, SmolLM2-135M",
        "live.gpu_speedup_llama8b": "... the shape of Llama-3-8B",
        "live.gpu_overhead_pct": "... what recording and experiments cost",
        "live.decode_steps_tuned_share": "... decode steps with a tuned config, Llama-3-8B",
        "live.decode_steps_tuned_share_smollm2": "... SmolLM2-135M",
        "live.rollback_steps": "... steps until a config put in force by mistake was gone",
        "tables.shipped_geometries": "Geometries with a tuned table in the package, H200",
        "tables.shipped_speedup_geomean": "... gain over the default in the buckets that they list",
        "tuner.regret_pct_at_40": "What the tuner finds in 40 trials is slower than the best by",
        "tuner.regret_pct_at_150": "... in 150 trials",
        "tuner.regret_pct_at_40_random": "... what 40 random trials find",
        "tuner.aa_searches": "Searches on simulated live steps in which no config is better",
        "tuner.aa_false_promotion_pct": "... of them that promote one all the same",
        "tuner.watched_steps_to_roll_back": "Steps until a promotion 10 % slower is gone, at most",
        "tuner.kill_rounds": "Rounds of SIGKILL of the tuner, its worker or a server",
        "tuner.kill_lost": "... messages, evidence or promotions lost that were acknowledged",
        "tuner.fuzz_requests": "Requests that no client should send, answered by the tuner",
        "tuner.fuzz_5xx": "... of them with a failure (5xx)",
        "tuner.next_task_ms_10k_buckets": "CPU time of handing out a task, at 10,000 buckets",
        "tuner.overview_ms_10k_buckets": "... of what the page shows",
        "tuner.history_ms_10k_buckets": "... of a point of the time series",
        "tuner.ingest_records_per_s": "Traced steps taken per second of the tuner's CPU time",
        "tuner.memory_mib_10k_buckets": "Memory of the tuner's core then, torch included",
    },
    "The demo": {
        "demo.attention_speedup_tuned_vs_default": "Attention in the demo, tuned vs default",
        "tuner.demo_min_bucket_ratio": "... in the least tuned bucket, its median of fresh steps",
        "tuner.demo_slower_buckets": "... buckets slower than 0.98x with 95 % confidence",
        "demo.hybrid_step_share": "Hybrid steps in the demo",
        "demo.seconds_to_summary": "From start to summary",
    },
    "The source": {
        "house.device_branches_outside": "Branches by kind of device outside of `devices/`",
        "house.import_circles": "Import circles between modules",
        "house.signatures_per_scalar": "Signatures to change for one more scalar of the op",
    },
}


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
        "BatchPOD {h200.default_vs_flashinfer_batchpod_geomean}. SGLang's build of "
        "FlashAttention-3 is not among these: over vLLM's public batches, most of one op, the "
        "default is at {h200.public_grammar_geomean} of the quickest kernels with it, at "
        "{h200.public_grammar_usual_geomean} with 32/8 heads of 128 "
        "([docs/gpu.md](docs/gpu.md#vllms-public-batches))",
    ),
    Row(
        "SGLang on `pod` with mixed chunks against SGLang on `fa3` without, as people run it",
        "{serving.speedup_vs_unmixed_fa3_min}, {serving.speedup_vs_unmixed_fa3_max}",
        "least and most of {serving.settings} settings, output tokens/s, saturated, on an H200: "
        "models of their real depth with random weights, long prompts (arXiv's 10K beside answers "
        "of 470 tokens, and the paper's 16.5K in all), each side at the best chunk tried "
        "([docs/gpu.md](docs/gpu.md#serving) lists them); ITL p99 is "
        "{serving.itl_p99_ratio_geomean} of `fa3`'s. Against `fa3` with mixed chunks "
        "{serving.speedup_vs_mixed_fa3_min} and more. One stretch per setting",
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
