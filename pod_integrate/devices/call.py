"""One attention call, and what runs it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pod_integrate.errors import ShapeError
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import Numbers, make_geometry, numbers_in, numbers_of
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.scalars import Scalars


class PlanWords(NamedTuple):
    """What a captured call reads of a DevicePlan.

    words     int32, on the device
    capacity  grid sizes and split rows that the call launches with
    few_rows  whether decodes of all batches that will lie there have so few packed rows that a
              smaller decode tile holds them
    """

    words: torch.Tensor
    capacity: Sequence[int]
    few_rows: bool = False


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

    def numbers(self) -> Numbers:
        """Of its geometry."""
        scalars = self.scalars
        return numbers_of(self.q, self.k_cache, scalars.window_left, scalars.logit_cap)


class Attention(abc.ABC):
    """Calls of one geometry with one config: built, loaded, ready to run."""

    def __init__(self, geometry: Geometry, config: PodConfig) -> None:
        self.geometry, self.config = geometry, config
        self._numbers = numbers_in(geometry)

    @abc.abstractmethod
    def __call__(self, call: Call) -> None:
        """Attend into call.out and call.lse. Raises as hybrid_attention; nothing runs then.

        `call` is of this geometry: who did not find the attention by it asks require_fits first.
        """

    def require_fits(self, call: Call) -> None:
        """Raise ShapeError, or DtypeError, for a call of another geometry.

        Its rows would be read as rows of this one's size.
        """
        numbers = call.numbers()
        if numbers != self._numbers:
            raise ShapeError(
                f"the attention was made for {self.geometry}, the call is of "
                f"{make_geometry(numbers)}; make one per geometry"
            )
