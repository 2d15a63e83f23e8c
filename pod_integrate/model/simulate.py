"""One simulated launch of a batch: the kernel's plan, its tickets, and the fluid engine.

fused    one grid; each SM draws tickets and takes prefill or decode by the plan's ratio. Where CTAs
         stay, each SM has an item of either op as long as there are any
serial   prefill's grid, then, when it is empty, decode's
streams  prefill's grid, and decode's from when prefill has no CTA left to start; so runs, too, a
         fused config that leaves it to the batch, on devices and batches as of side_by_side
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.batch_tiles import batch_config
from pod_integrate.devices.cuda.planning import Capacity
from pod_integrate.devices.cuda.side_by_side import may_run_beside, runs_beside
from pod_integrate.model.batches import Lengths
from pod_integrate.model.demand import (
    PARTIAL_BYTES,
    Demand,
    decode_demand,
    prefill_demand,
)
from pod_integrate.model.devices import Device
from pod_integrate.model.engine import Cta, SimulatedCta, Sms
from pod_integrate.model.floors import require_gpu_dtype
from pod_integrate.model.items import DecodedPlan, make_plan
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

# From the launch call to the first CTA, and between two kernels of a stream. Assumed.
LAUNCH_US = 3.0
NEXT_KERNEL_US = 2.0


class Simulation(NamedTuple):
    """A model's answer, not a measurement.

    us             launch to end, the merge of splits included
    attention_us   the same without launch overhead and merge
    merge_us       the merge launch; 0 without splits
    tensor_share   of the attainable tensor rate, over attention_us
    dram_share     of the data sheet's bandwidth, over attention_us
    waves          CTAs / (SMs x ctas_per_sm)
    records        every CTA, in the order in which they ended; seconds from the first CTA's start
    """

    us: float
    attention_us: float
    merge_us: float
    tensor_share: float
    dram_share: float
    waves: float
    plan: DecodedPlan
    records: list[SimulatedCta]


def simulate(
    lengths: Lengths,
    geometry: Geometry,
    config: PodConfig,
    device: Device,
    *,
    fill_ctas: int | None = None,
) -> Simulation:
    """Simulate one call; fill_ctas as of plan_batch.

    Raises DtypeError for values that the GPU kernel does not take.
    """
    require_gpu_dtype(geometry)
    q, kv = np.array(lengths.q_lens), np.array(lengths.kv_lens)
    config = batch_config(config, geometry, device.key, q, kv)
    plan = make_plan(lengths, geometry, config, device.sms, fill_ctas=fill_ctas)
    demands = (
        prefill_demand(_longest_first(plan), geometry, config, device),
        decode_demand(plan, geometry, config, device),
    )
    stays = _stays(config, geometry, device)
    # A CTA that stays has a role for each op, or two warpgroups that decode.
    sms = Sms(device, 2 if stays else config.ctas_per_sm)
    in_turn = not limits.pair_decodes(geometry.head_dim, ELEMENT_BYTES[geometry.kv_dtype])
    launches = _run(sms, plan, demands, config, stays=stays, in_turn=in_turn)
    total = sms.now
    merge_us = _merge_us(plan, geometry, device)
    launch_us = LAUNCH_US + (launches - 1) * NEXT_KERNEL_US if launches else 0.0
    tensor, dram = (sum(float(getattr(d, n).sum()) for d in demands) for n in ("tensor", "dram"))
    return Simulation(
        us=total * 1e6 + launch_us + merge_us,
        attention_us=total * 1e6,
        merge_us=merge_us,
        tensor_share=tensor / (total * device.sms) if total else 0.0,
        dram_share=dram / (total * device.dram_bytes) if total else 0.0,
        waves=(plan.prefill_ctas + plan.decode_ctas) / (device.sms * config.ctas_per_sm),
        plan=plan,
        records=sms.records,
    )


def _longest_first(plan: DecodedPlan) -> DecodedPlan:
    """The plan with prefill items by length alone.

    Nothing is simulated of L2 that their order would change, and CTAs of one length, started side
    by side, end in one event: a prompt of 16K tokens takes seconds otherwise.
    """
    items = plan.prefill
    size = (items["kv1"] - items["kv0"]).astype(np.int64) * items["rows"]
    return plan._replace(prefill=items[np.argsort(-size, kind="stable")])


def _stays(config: PodConfig, geometry: Geometry, device: Device) -> bool:
    """Whether a fused launch has CTAs that run items of both ops until all is done."""
    arch, kv_bytes = limits.architecture(device.key.capability), ELEMENT_BYTES[geometry.kv_dtype]
    engine = limits.prefill_engine(config, arch, geometry.head_dim, kv_bytes)
    return engine == "pair" and config.strategy == "fused"


def _run(
    sms: Sms,
    plan: DecodedPlan,
    demands: tuple[Demand, Demand],
    config: PodConfig,
    *,
    stays: bool,
    in_turn: bool,
) -> int:
    """Run all CTAs and return how many launches depend on each other."""
    prefill, decode = demands
    if plan.prefill_ctas + plan.decode_ctas == 0:
        return 0
    strategy = _strategy(plan, config, sms.device)
    if stays and in_turn:
        sms.run(_Turns(sms, plan, prefill, decode).draw)
    elif stays:
        sms.run(_Roles(sms, prefill, decode).draw)
    elif strategy == "fused":
        sms.run(_Tickets(plan, prefill, decode, sms.device.sms).draw)
    elif strategy == "streams":
        sms.run(_in_order([("prefill", prefill), ("decode", decode)]))
    else:
        sms.run(_in_order([("prefill", prefill)]))
        sms.run(_in_order([("decode", decode)]))
        return int(plan.prefill_ctas > 0) + int(plan.decode_ctas > 0)
    return 1


def _strategy(plan: DecodedPlan, config: PodConfig, device: Device) -> str:
    """How a call launches this plan there."""
    merges = len(plan.merge)
    grids = Capacity(plan.prefill_ctas, plan.decode_ctas, merges, plan.partial_rows)
    beside = may_run_beside(config, device.key) and runs_beside(grids, config, device.sms)
    return "streams" if beside else config.strategy


def _in_order(grids: list[tuple[str, Demand]]) -> Callable[[int], Cta | None]:
    def ctas() -> Iterator[Cta]:
        for op, demand in grids:
            for index in range(len(demand.tensor)):
                yield Cta(op, demand, index)

    source = ctas()
    return lambda _: next(source, None)


class _Roles:
    """Prefill warps and decode warps of one CTA per SM; each side draws the next item of its op.

    First decodes in the order of SMs, where the kernel gives them out from the last one on.
    """

    def __init__(self, sms: Sms, prefill: Demand, decode: Demand) -> None:
        self._sms, self._ops = sms, {"prefill": prefill, "decode": decode}
        self._next = {"prefill": 0, "decode": 0}

    def draw(self, sm: int) -> Cta | None:
        """The next item of the op that `sm` has none of; None when there is no more."""
        for op, demand in self._ops.items():
            index = self._next[op]
            if op not in self._sms.running(sm) and index < len(demand.tensor):
                self._next[op] = index + 1
                return Cta(op, demand, index)
        return None


class _Turns:
    """CTAs that run one op at a time, one per SM: a prefill item, or a decode item on either side.

    As many begin with prefill as the CTA ratio says, and turn to what is left.
    """

    def __init__(self, sms: Sms, plan: DecodedPlan, prefill: Demand, decode: Demand) -> None:
        self._sms, self._ops = sms, {"prefill": prefill, "decode": decode}
        self._next = {"prefill": 0, "decode": 0}
        ctas = min(plan.prefill_ctas + plan.decode_ctas, sms.device.sms)
        first = -(-ctas * plan.ratio[0] // max(1, sum(plan.ratio)))
        self._turn = ["prefill" if sm < first else "decode" for sm in range(ctas)]

    def draw(self, sm: int) -> Cta | None:
        """The next item of the op that `sm` runs, once it is idle of the other; None: it waits."""
        running = self._sms.running(sm)
        if sm >= len(self._turn) or "prefill" in running:
            return None
        turn = self._turn[sm]
        for op in (turn,) if running else (turn, "decode" if turn == "prefill" else "prefill"):
            index = self._next[op]
            if index < len(self._ops[op].tensor):
                self._next[op], self._turn[sm] = index + 1, op
                return Cta(op, self._ops[op], index)
        return None


class _Tickets:
    """The scheduler of a fused launch: ticket t of an SM is prefill iff (t mod n) P mod n < P."""

    def __init__(self, plan: DecodedPlan, prefill: Demand, decode: Demand, sms: int) -> None:
        self.ops = {"prefill": prefill, "decode": decode}
        self.next = {"prefill": 0, "decode": 0}
        self.ratio = plan.ratio
        self.ticket = np.zeros(sms, dtype=np.int64)

    def draw(self, sm: int) -> Cta | None:
        """The CTA that starts on `sm` now; the other op's once the ticket's op is exhausted."""
        wanted = self._op(int(self.ticket[sm]))
        self.ticket[sm] += 1
        other = "decode" if wanted == "prefill" else "prefill"
        for op in (wanted, other):
            index = self.next[op]
            if index < len(self.ops[op].tensor):
                self.next[op] = index + 1
                return Cta(op, self.ops[op], index)
        return None

    def _op(self, ticket: int) -> str:
        prefill, decode = self.ratio
        total = prefill + decode
        return "prefill" if (ticket % total) * prefill % total < prefill else "decode"


def _merge_us(plan: DecodedPlan, geometry: Geometry, device: Device) -> float:
    """The second launch: reads partial O, m and l, from L2 where they fit, writes O."""
    if not len(plan.merge):
        return 0.0
    read = plan.partial_rows * (geometry.head_dim + 2) * PARTIAL_BYTES
    rate = device.l2_bytes if read <= device.l2_capacity / 2 else device.dram_bytes
    return 2 * NEXT_KERNEL_US + read / rate * 1e6
