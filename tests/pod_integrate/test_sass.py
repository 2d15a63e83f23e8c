"""Machine code is counted per kernel, and what attention kernels lack is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pod_integrate.builds import nvcc, sass
from pod_integrate.errors import BuildError

PREFIX = "_ZN3pod10pod_kernelINS_12_GLOBAL__N_17VariantELNS_3OpsE"
DUMP = f"""
code for sm_90a
\t\tFunction : {PREFIX}2EEEvNS_15LaunchArgumentsE
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                 /* 0x00000a00ff017b82 */
                                                                          /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDSM.16.M88.4 R4, [R2] ;               /* 0x000000000204783b */
        /*0020*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;   /* 0x000000060408723c */
        /*0030*/             @!UP1 LDGSTS.E.BYPASS.128 [R3], [R4.64] ;    /* 0x0000000004037fae */
        /*0040*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;   /* 0x000000060408723c */
        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;          /* 0x0000000000007b1d */
\t\tFunction : _ZN3pod12merge_kernelINS_7VariantEEEvNS_15LaunchArgumentsE
        /*0000*/                   STL [R1], R2 ;                         /* 0x0000000201007387 */
"""


def test_instructions_are_counted_per_kernel() -> None:
    counts = sass.parse_sass(DUMP)
    none = {"HGMMA": 0, "LDL": 0, "STL": 0}
    assert counts["fused"] == {"HMMA": 2, "LDSM": 1, "LDGSTS": 1, "BAR": 1, **none}
    assert counts["merge"]["STL"] == 1


def test_missing_names_kernels_and_instructions() -> None:
    good = {"HMMA": 1, "LDSM": 1, "LDGSTS": 1, "HGMMA": 0}
    kernels = {"prefill": good, "decode": good | {"LDSM": 0}, "fused": good}
    assert sass.missing(kernels) == ["decode has no LDSM"]
    assert sass.missing(kernels | {"decode": good}) == []
    assert sass.missing({"fused": good}) == ["only ['fused'] of three kernels"]


def test_ops_on_the_warpgroup_unit_need_neither_hmma_nor_ldsm() -> None:
    mma = {"HMMA": 1, "LDSM": 1, "LDGSTS": 1, "HGMMA": 0}
    bare = {"HMMA": 0, "LDSM": 0, "LDGSTS": 1, "HGMMA": 1}
    both = {"HMMA": 1, "LDSM": 1, "LDGSTS": 1, "HGMMA": 1}
    assert sass.missing({"prefill": bare, "decode": mma, "fused": both}) == []
    assert sass.missing({"prefill": bare, "decode": bare, "fused": bare}) == []
    lacking = sass.missing({"prefill": bare, "decode": mma, "fused": bare})
    assert lacking == ["fused has no HMMA", "fused has no LDSM"]
    assert sass.missing({"prefill": bare, "decode": bare, "fused": bare | {"LDGSTS": 0}}) == [
        "fused has no LDGSTS"
    ]


def test_missing_programs_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvcc, "wheel_folders", lambda: [tmp_path / "none"])
    with pytest.raises(BuildError, match=r"no cuobjdump .*pip install .*\[cuda\]"):
        sass.find_cuobjdump()
    for program in ("cuobjdump", "nvdisasm"):
        if program == "nvdisasm":
            with pytest.raises(BuildError, match="no nvdisasm"):
                sass.find_cuobjdump()
        (tmp_path / program).write_text("#!/bin/sh\necho nothing >&2\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(BuildError, match="shows no kernel: nothing"):
        sass.count_instructions(tmp_path / "library.so")
