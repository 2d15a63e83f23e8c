"""NVIDIA architectures that the CUDA kernel is compiled for."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pod_integrate.errors import KernelUnavailableError

# What multiplies in a prefill item, as PrefillEngine of config.h has it.
PrefillEngine = Literal["mma", "wgmma", "pair"]
_CAPABILITY = re.compile(r"sm(\d+)(\d)")


class Architecture(NamedTuple):
    """One compile target; shared memory in KiB per SM and per CTA (CUDA C++ Programming Guide).

    name     as nvcc spells it, e.g. `sm_90a`
    engines  of prefill, the best first; each takes the tiles that suit it, mma takes all
    """

    name: str
    capability: tuple[int, int]
    smem_per_sm: int
    smem_per_cta: int
    warps_per_sm: int
    engines: tuple[PrefillEngine, ...] = ("mma",)


ARCHITECTURES = {
    arch.name: arch
    for arch in (
        Architecture("sm_80", (8, 0), 164, 163, 64),
        Architecture("sm_86", (8, 6), 100, 99, 48),
        Architecture("sm_89", (8, 9), 100, 99, 48),
        Architecture("sm_90a", (9, 0), 228, 227, 64, ("pair", "wgmma", "mma")),
        Architecture("sm_100", (10, 0), 228, 227, 64),
        Architecture("sm_120", (12, 0), 100, 99, 48),
    )
}


def architecture(capability: str) -> Architecture:
    """The target whose code a GPU of this capability (`sm90`, `sm103`) runs.

    Code runs on its own and on later minor versions of one major version. Raises
    KernelUnavailableError for anything older than sm80, or of a major version without a target.
    """
    found = _CAPABILITY.fullmatch(capability)
    if found is not None:
        wanted = (int(found[1]), int(found[2]))
        usable = [
            arch
            for arch in ARCHITECTURES.values()
            if arch.capability[0] == wanted[0] and arch.capability <= wanted
        ]
        if usable:
            return max(usable, key=lambda arch: arch.capability)
    raise KernelUnavailableError(
        f"no kernel for compute capability {capability!r}; compiled targets are "
        f"{', '.join(ARCHITECTURES)} and later minor versions of them. Move the tensors to the CPU"
    )
