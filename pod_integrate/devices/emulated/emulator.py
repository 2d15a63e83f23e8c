"""The CUDA kernel on an emulated GPU: hybrid_attention's arguments, and a schedule to run under.

Inputs are copied into memory that ends at an unreadable page, outputs and workspace start as NaN:
reads and writes out of range, and rows left unwritten, cannot pass unnoticed.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
import tvm_ffi

from pod_integrate.builds import native
from pod_integrate.devices.call import Result
from pod_integrate.devices.cuda import kernel_library, limits
from pod_integrate.devices.cuda.kernel_library import KernelLibrary
from pod_integrate.devices.cuda.planning import Capacity, plan_batch
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.emulated.cta_records import RECORD_WORDS, CtaRecord, decode_records
from pod_integrate.devices.emulated.emulator_build import build as build
from pod_integrate.devices.emulated.guarded import GuardedMemory, guarded_memory
from pod_integrate.errors import ConfigError, PodAttentionError
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import STRATEGIES, PodConfig
from pod_integrate.terms.geometry import geometry_of
from pod_integrate.terms.keys import DeviceKey
from pod_integrate.terms.scalars import Scalars

Order = Literal["ascending", "descending", "random"]
Copies = Literal["late", "early"]
_STATISTICS = 16
# One configuration per library: a call and its schedule belong together.
_lock = threading.Lock()


class EmulatorError(Exception):
    """The emulated GPU stopped: a deadlock, a wild access, a misused instruction, with places."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the emulated GPU runs a launch.

    num_sms          SMs, each with the config's ctas_per_sm CTAs at once
    order            of threads, and of CTAs when random
    copies           asynchronous copies land at their wait (`late`, poison until then) or at issue
    preempt_percent  chance of a switch at each point where a thread may be preempted
    seed             of the random order and of preemption
    sm_slots         ticket counters; default num_sms
    arch             whose kernel it is: on `sm_90a` some prefill tiles run on wgmma
    """

    num_sms: int = 2
    order: Order = "ascending"
    copies: Copies = "late"
    preempt_percent: int = 0
    seed: int = 0
    sm_slots: int | None = None
    arch: str = "sm_90a"

    def __post_init__(self) -> None:
        choices = {"order": get_args(Order), "copies": get_args(Copies)}
        choices["arch"] = tuple(limits.ARCHITECTURES)
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if self.num_sms < 1 or not 0 <= self.preempt_percent <= 100:
            raise ConfigError(
                f"num_sms must be >= 1 and preempt_percent 0..100, got {self.num_sms} and "
                f"{self.preempt_percent}"
            )


class Stats(NamedTuple):
    """What the emulated GPU counted during a call; the names of machine.h."""

    switches: int
    mma: int
    ldmatrix: int
    ldmatrix_extra_wavefronts: int
    cp_async: int
    barriers: int
    shuffles: int
    ctas: int
    max_resident: int
    atomics: int
    wgmma: int
    proxy_fences: int
    stmatrix: int
    stmatrix_extra_wavefronts: int


class Emulated(NamedTuple):
    """The call's answer, and how it came about."""

    out: torch.Tensor
    lse: torch.Tensor
    stats: Stats
    records: list[CtaRecord]

    @property
    def attention(self) -> Result:
        """As hybrid_attention answers."""
        return Result(self.out, self.lse)


def attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    *,
    config: PodConfig | None = None,
    scale: float | None = None,
    window_left: int = -1,
    logit_cap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    sinks: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    plan: DevicePlan | None = None,
    schedule: Schedule | None = None,
    residency: int | None = None,
) -> Emulated:
    """hybrid_attention on the emulated GPU; tensors on the CPU, other arguments as there.

    config     default the one of sm_90a; built first when the cache does not have its variant
    schedule   default Schedule()
    residency  CTAs that an SM holds at once; default ctas_per_sm, which a GPU may exceed
    Raises EmulatorError with the emulator's report; otherwise as hybrid_attention.
    """
    schedule = schedule or Schedule()
    geometry = geometry_of(q, k_cache, window_left=window_left, logit_cap=logit_cap)
    limits.require_head_dim(geometry.head_dim)
    if plan is not None:
        plan.require_fits(q, k_cache, batch, window_left)
        chosen, words, capacity = plan.config, plan.words, plan.capacity
    else:
        chosen = config or limits.default_config(DeviceKey("emulated", "sm90", 2), geometry)
        made = plan_batch(batch.q_indptr, batch.kv_lens, geometry, chosen, num_sms=schedule.num_sms)
        words, capacity = made.words, made.capacity
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    scalars = Scalars(factor, window_left, logit_cap, k_scale, v_scale)
    library = kernel_library.load(build(Variant.of(chosen, geometry), arch=schedule.arch))
    call = _Call(library, chosen, capacity, schedule)
    with configured(library, residency or chosen.ctas_per_sm, schedule):
        return call.run((q, k_cache, v_cache), batch, words, scalars, sinks, out)


@dataclasses.dataclass(frozen=True)
class _Call:
    library: KernelLibrary
    config: PodConfig
    capacity: Capacity
    schedule: Schedule

    def run(
        self,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        batch: HybridBatch,
        words: torch.Tensor,
        scalars: Scalars,
        sinks: torch.Tensor | None,
        out: torch.Tensor | None,
    ) -> Emulated:
        with guarded_memory(self.library.library) as memory:
            q = tensors[0]
            result = memory.copy(torch.full_like(q, math.nan) if out is None else out)
            lse = memory.copy(torch.full(q.shape[:2], math.nan))
            records = memory.poisoned(RECORD_WORDS * sum(self.capacity[:2]), torch.int64)
            plan = memory.copy(words)
            indices = (memory.copy(t) for t in (batch.page_indices, batch.page_starts))
            self._launch(
                *(*map(memory.copy, tensors), plan, *indices, batch.page_size, scalars.pack()),
                *(None if sinks is None else memory.copy(sinks), result, lse),
                *(self._workspace(memory, q.shape[2]), tvm_ffi.Shape(self.capacity)),
                *(STRATEGIES.index(self.config.strategy), self._sm_slots, 0, 0, records),
            )
            if not torch.equal(plan, words):
                raise EmulatorError("the launch left its plan changed; the next one would fail")
            answer = result.clone() if out is None else out.copy_(result)
            return Emulated(answer, lse.clone(), _take_stats(self.library), decode_records(records))

    @property
    def _sm_slots(self) -> int:
        return self.schedule.sm_slots or self.schedule.num_sms

    def _workspace(self, memory: GuardedMemory, head_dim: int) -> torch.Tensor:
        sizes = (self._sm_slots, self.capacity.partial_rows, head_dim)
        return memory.poisoned(native.load("host").workspace_size(*sizes), torch.uint8)

    def _launch(self, *arguments: object) -> None:
        addresses = (self.library.launch, self.library.error)
        try:
            native.load("host").attend(*addresses, *arguments)
        except RuntimeError as error:
            if isinstance(error, PodAttentionError):
                raise
            raise EmulatorError(str(error)) from error


@contextlib.contextmanager
def configured(library: KernelLibrary, residency: int, schedule: Schedule) -> Iterator[None]:
    """The emulated GPU of a library set up, for one thread's launches until the block ends."""
    with _lock:
        library.library.pod_emulator_configure(
            schedule.num_sms,
            residency,
            get_args(Order).index(schedule.order),
            get_args(Copies).index(schedule.copies),
            schedule.preempt_percent,
            schedule.seed,
        )
        _take_stats(library)
        yield


def _take_stats(library: KernelLibrary) -> Stats:
    values = (ctypes.c_int64 * _STATISTICS)()
    library.library.pod_emulator_stats(values, 1)
    return Stats(*values[: len(Stats._fields)])
