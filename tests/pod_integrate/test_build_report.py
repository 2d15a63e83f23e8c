"""What ptxas says of a compiled variant is read whole or refused."""

from __future__ import annotations

import pytest

from pod_integrate.builds.report import parse_usage
from pod_integrate.errors import BuildError


def test_spills_of_every_kernel_and_callee_are_counted() -> None:
    usage = parse_usage("""
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5fusedv' for 'sm_80'
ptxas info    : Function properties for _Z5fusedv
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 3 barriers, 16 bytes cumulative stack size, 32 bytes smem
ptxas info    : Compiling entry function '_Z5mergev' for 'sm_80'
ptxas info    : Function properties for _Z5mergev
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for _Z6calleev
    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, 400 bytes cmem[0]
""")
    assert [(k.name, k.registers, k.static_smem) for k in usage] == [
        ("_Z5fusedv", 255, 32),
        ("_Z5mergev", 40, 0),
    ]
    assert [(k.stack, k.spill_stores, k.spill_loads) for k in usage] == [(16, 8, 12), (0, 4, 4)]


def test_words_of_ptxas_that_are_not_understood_are_no_empty_report() -> None:
    with pytest.raises(BuildError, match="no registers of _Z5fusedv"):
        parse_usage("ptxas info : Compiling entry function '_Z5fusedv' for 'sm_80'\n")
