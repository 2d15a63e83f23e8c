"""Speculative decoding: what of it the backend is asked to serve, and the shape of verify steps.

In a verify step the model attends a request's last token and its drafts at once. With one branch
per draft (top-k 1) they are consecutive tokens: a few rows of a causal chain, as any batch has.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch

BACKEND = "pod"
# Whose verify steps are one width for all requests, with a chain where top-k is 1.
CHAINED = ("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM")
_PLAN_STREAM = "SGLANG_ENABLE_OVERLAP_PLAN_STREAM"
# What SGLang itself reads as true.
_YES = ("1", "true", "yes", "y")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speculation:
    """How a server speculates; fields are named after its flags where it has one.

    drafts        whether this backend is to run the draft model
    verifies      whether this backend is to verify drafts
    draft_tokens  tokens of a request in a verify step, its last one included
    plan_stream   whether SGLang prepares verify steps on a stream of their own
    """

    algorithm: str
    drafts: bool = False
    verifies: bool = True
    eagle_topk: int = 1
    draft_tokens: int = 0
    adaptive: bool = False
    plan_stream: bool = False

    @property
    def branches(self) -> bool:
        """Whether drafts of a request may be a tree.

        n-grams branch where several match, and what is missing of a draft hangs off its root; a
        draft of one token cannot.
        """
        return self.draft_tokens > 2 if self.algorithm == "NGRAM" else self.eagle_topk > 1


def speculation(runner: Any, arguments: Any) -> Speculation | None:
    """How the server of a ModelRunner speculates, None where it does not.

    arguments  of the server, as SGLang decided on them
    """
    if not runner.spec_algorithm.is_speculative():
        return None

    def flag(name: str, default: Any) -> Any:
        found = getattr(arguments, name, None)
        return default if found is None else found

    drafts = bool(getattr(runner, "is_draft_worker", False))
    side = flag("speculative_attention_mode", "prefill")
    verifier = flag(f"{side}_attention_backend", flag("attention_backend", BACKEND))
    return Speculation(
        algorithm=str(flag("speculative_algorithm", "on")).upper(),
        drafts=drafts,
        verifies=not drafts and verifier == BACKEND,
        eagle_topk=int(flag("speculative_eagle_topk", 1)),
        draft_tokens=int(flag("speculative_num_draft_tokens", 0)),
        adaptive=bool(flag("speculative_adaptive", False)),
        plan_stream=os.environ.get(_PLAN_STREAM, "0").lower() in _YES,
    )


def verify_parts(tokens: int, group: int, rows: int) -> list[int]:
    """How many of a request's tokens each decode item of a verify step takes, in order.

    group  query heads per KV head
    rows   of a decode at most: a longer part would be a prefill
    """
    each = max(1, rows // group)
    return [min(each, tokens - begin) for begin in range(0, tokens, each)]


def chain_mask(max_requests: int, draft_tokens: int, device: torch.device) -> Any:
    """SGLang's mask of verify steps: written while it builds the chain, read by nobody.

    Without one it fills a mask over all keys for every step. None where this SGLang (before
    0.5.16) does not ask for one.
    """
    try:
        from sglang.srt.layers.attention.verify_mask import maybe_create_verify_mask
    except ImportError:
        return None
    return maybe_create_verify_mask(
        is_draft_runner=False,
        skip_prefill=False,
        max_bs=max_requests,
        max_context_len=0,
        num_draft_tokens=draft_tokens,
        device=device,
        is_read=False,
    )
