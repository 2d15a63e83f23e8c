"""What ptxas says of a compiled variant: registers, spills and shared memory of its kernels."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import BuildError

_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
# pod_kernel<Variant, Ops>; the enum's values in order.
_OPS = re.compile(r"pod_kernel.*OpsE(\d)E")
_OP_NAMES = ("prefill", "decode", "fused")
# Registers are allotted to a warp in units of 256, from a quarter of the SM's.
_REGISTER_UNIT = 256
_QUARTERS = 4
_SMEM_UNIT = 128
# wgmma is asynchronous unless ptxas cannot tell when its registers are free.
_SERIALIZED = "wgmma.mma_async instructions are serialized"
_USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


class KernelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What ptxas reports of one kernel; bytes per thread, but static_smem per CTA.

    name  prefill, decode, fused, merge or stamp; the mangled name of any other kernel
    """

    name: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_smem: int


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one library was built; lies beside it as JSON.

    wgmma_serialized  ptxas made some kernel wait for each of its wgmma
    """

    variant: str
    arch: str
    build: str
    compiler: str
    seconds: float
    kernels: list[KernelUsage]
    wgmma_serialized: bool = False

    @property
    def registers(self) -> int:
        """Most registers that a thread of any kernel uses."""
        return max((kernel.registers for kernel in self.kernels), default=0)

    @property
    def spills(self) -> int:
        """Bytes spilled, stores and loads of all kernels together."""
        return sum(kernel.spill_stores + kernel.spill_loads for kernel in self.kernels)

    @property
    def smem(self) -> int:
        """Shared memory of a CTA that may run either op, in bytes."""
        variant, arch = Variant.parse(self.variant), limits.ARCHITECTURES[self.arch]
        static = max((kernel.static_smem for kernel in self.kernels), default=0)
        fused = limits.fused_smem_bytes
        return static + fused(variant.config(), arch, variant.head_dim, variant.kv_bytes)

    @property
    def resident_ctas(self) -> int:
        """CTAs of the fused kernel that one SM holds at once, by registers, memory and warps."""
        variant, arch = Variant.parse(self.variant), limits.ARCHITECTURES[self.arch]
        warps = limits.cta_warps(variant.config())
        per_warp = -(-self.registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
        by_registers = limits.REGISTERS // _QUARTERS // per_warp * _QUARTERS // warps
        smem = -(-(self.smem + limits.RESERVED_BYTES) // _SMEM_UNIT) * _SMEM_UNIT
        return min(by_registers, (arch.smem_per_sm << 10) // smem, arch.warps_per_sm // warps)

    def write(self, library: Path) -> None:
        """Write the report beside its library."""
        text = msgspec.json.format(msgspec.json.encode(self))
        library.with_suffix(".json").write_bytes(text + b"\n")

    @classmethod
    def read(cls, library: Path) -> BuildReport:
        """The report beside a library; raises BuildError when it is missing or malformed."""
        path = library.with_suffix(".json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise BuildError(f"{path}: {error}; delete {library} and build it again") from error


def is_wgmma_serialized(text: str) -> bool:
    """Whether ptxas says so in the output of an nvcc run."""
    return _SERIALIZED in text


def parse_usage(text: str) -> list[KernelUsage]:
    """Kernels of an `nvcc --resource-usage` run; a called function's spills count for its caller.

    Raises BuildError when ptxas' words are not understood.
    """
    parts = _ENTRY.split(text)
    kernels = []
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        used = _USED.search(said)
        if used is None:
            raise BuildError(f"ptxas told no registers of {name}:\n{text}")
        stack, stores, loads = (sum(column) for column in zip(*_frames(said), strict=True))
        kernels.append(
            KernelUsage(
                name=short_name(name),
                registers=int(used[1]),
                stack=stack,
                spill_stores=stores,
                spill_loads=loads,
                static_smem=int(used[2] or 0),
            )
        )
    return kernels


def short_name(mangled: str) -> str:
    """prefill, decode, fused, merge or stamp; any other kernel keeps its mangled name."""
    ops = _OPS.search(mangled)
    if ops is not None:
        return _OP_NAMES[int(ops[1])]
    found = [name for name in ("merge", "stamp") if f"{name}_kernel" in mangled]
    return found[0] if found else mangled


def _frames(said: str) -> list[tuple[int, int, int]]:
    found = [(int(m[1]), int(m[2]), int(m[3])) for m in _SPILLS.finditer(said)]
    return found or [(0, 0, 0)]
