"""One attention call, and what runs it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.scalars import Scalars


class PlanWords(NamedTuple):
    """What a captured call reads of a DevicePlan.

    words     int32, on the device
    capacity  grid sizes and split rows that the call launches with
    """

    words: torch.Tensor
    capacity: Sequence[int]


class Result(NamedTuple):
    """out [T, Hq, D] in the dtype of q, lse [T, Hq] fp32 natural log."""

    out: torch.Tensor
    lse: torch.Tensor


class Call(NamedTuple):
    """One attention call; hybrid_attention says what each tensor is.

    out, lse  written
    plan      for CUDA graphs; None: the batch is planned when it is new
    records   int64 [CTAs, 5] on the device, receives what each CTA did (CtaRecord of arguments.h)
    """

    q: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    batch: HybridBatch
    scalars: Scalars
    sinks: torch.Tensor | None
    out: torch.Tensor
    lse: torch.Tensor
    plan: PlanWords | None = None
    records: torch.Tensor | None = None


class Attention(abc.ABC):
    """Calls of one geometry with one config: built, loaded, ready to run."""

    config: PodConfig

    @abc.abstractmethod
    def __call__(self, call: Call) -> None:
        """Attend into call.out and call.lse. Raises as hybrid_attention; nothing runs then."""
