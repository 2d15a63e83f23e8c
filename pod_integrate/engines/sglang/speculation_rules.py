"""What of speculative decoding the backend does not serve."""

from __future__ import annotations

from collections.abc import Callable

from pod_integrate.engines.sglang.facts import EngineFacts
from pod_integrate.engines.sglang.rules import Rule
from pod_integrate.engines.sglang.speculation import CHAINED, Speculation

# Verifies instead; prefill and mixed steps stay on this backend.
_BESIDE = "--speculative-attention-mode decode --decode-attention-backend"
_DRAFTING = "--speculative-draft-attention-backend"
_STOCK = ("fa3", "flashinfer", "triton")


def _verifies(applies: Callable[[Speculation], bool]) -> Callable[[EngineFacts], bool]:
    def both(facts: EngineFacts) -> bool:
        found = facts.speculation
        return found is not None and found.verifies and applies(found)

    return both


def _algorithm(facts: EngineFacts) -> str:
    return "" if facts.speculation is None else facts.speculation.algorithm


def _trees(facts: EngineFacts) -> str:
    found = facts.speculation
    if found is None or found.algorithm == "NGRAM":
        return "NGRAM drafts of more than one token, which branch"
    return f"--speculative-eagle-topk {found.eagle_topk}"


def _one_branch(facts: EngineFacts) -> str:
    if _algorithm(facts) == "NGRAM":
        return "pass --speculative-num-draft-tokens 2"
    return "pass --speculative-eagle-topk 1"


SPECULATION: tuple[Rule[EngineFacts], ...] = (
    Rule(
        "draft models of speculative decoding",
        lambda f: f.speculation is not None and f.speculation.drafts,
        lambda f: f"--speculative-algorithm {_algorithm(f)} with drafts on pod",
        "drop --speculative-algorithm",
        _STOCK,
        _DRAFTING,
    ),
    Rule(
        "this speculative algorithm",
        _verifies(lambda s: s.algorithm not in CHAINED),
        lambda f: f"--speculative-algorithm {_algorithm(f)}",
        f"choose one of {', '.join(CHAINED)}",
        _STOCK,
        _BESIDE,
    ),
    Rule(
        "trees of drafts",
        _verifies(lambda s: s.branches),
        _trees,
        _one_branch,
        _STOCK,
        _BESIDE,
    ),
    Rule(
        "adaptive speculation",
        _verifies(lambda s: s.adaptive),
        lambda f: "--speculative-adaptive",
        "drop the flag",
        _STOCK,
        _BESIDE,
    ),
    Rule(
        "verify steps prepared on a stream of their own",
        _verifies(lambda s: s.plan_stream),
        lambda f: "SGLANG_ENABLE_OVERLAP_PLAN_STREAM",
        "unset it",
    ),
    # A token is attended among its neighbours in a verify step, alone in a decode step.
    Rule(
        "deterministic inference with speculative decoding",
        lambda f: f.deterministic and f.speculation is not None,
        lambda f: "--enable-deterministic-inference and --speculative-algorithm",
        "drop one of them",
    ),
)
