"""Shipped variants compile for every architecture: no spill, resident, on tensor cores.

Compiled here are two of them; benchmarks/results/kernel_build.json holds all and must be of the
current sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pod_integrate.builds import nvcc, sass
from pod_integrate.builds.report import BuildReport
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, defaults, shipped
from pod_integrate.errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = json.loads((ROOT / "benchmarks" / "results" / "kernel_build.json").read_text())
REGENERATE = "run python benchmarks/kernel_build.py and commit what it writes"
CHOSEN = (("bf16", 128), ("fp16", 64))
TARGETS = [(arch, *chosen) for arch in limits.ARCHITECTURES for chosen in CHOSEN]
# Compilers at once.
JOBS = 2


def compiler_is_missing() -> str | None:
    try:
        nvcc.find_nvcc()
    except BuildError as error:
        return str(error)
    return None


def default_variant(arch: str, dtype: str, head_dim: int) -> Variant:
    found = defaults(limits.ARCHITECTURES[arch])
    return next(v for v in found if (v.dtype, v.head_dim) == (dtype, head_dim))


@pytest.fixture(scope="module")
def libraries() -> Iterator[dict[tuple[str, str, int], Future[Path]]]:
    why = compiler_is_missing()
    if why is not None:
        pytest.skip(why)
    with ThreadPoolExecutor(JOBS) as pool:
        yield {
            target: pool.submit(
                nvcc.build,
                default_variant(*target),
                limits.ARCHITECTURES[target[0]],
                progress=lambda *_: None,
            )
            for target in TARGETS
        }


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: "-".join(map(str, target)))
def test_default_variant_is_what_it_should_be(
    libraries: dict[tuple[str, str, int], Future[Path]], target: tuple[str, str, int]
) -> None:
    library = libraries[target].result()
    report = BuildReport.read(library)
    names = {kernel.name for kernel in report.kernels}
    assert names == {"prefill", "decode", "fused", "merge", "stamp"}
    assert report.spills == 0
    assert not report.wgmma_serialized
    assert report.resident_ctas >= Variant.parse(report.variant).ctas_per_sm
    counts = sass.count_instructions(library)
    assert sass.missing(counts) == []
    assert not any(kernel[kind] for kernel in counts.values() for kind in ("LDL", "STL"))


def test_committed_report_is_of_the_current_sources() -> None:
    assert COMMITTED["library"] == nvcc.library_id(), REGENERATE


def test_committed_report_has_every_shipped_variant() -> None:
    reported = [(row["arch"], row["variant"]) for row in COMMITTED["variants"]]
    wanted = [(a.name, v.name) for a in limits.ARCHITECTURES.values() for v in shipped(a)]
    assert sorted(reported) == sorted(wanted), REGENERATE


@pytest.mark.parametrize(
    "row", COMMITTED["variants"], ids=lambda row: f"{row['arch']}-{row['variant']}"
)
def test_committed_variant_fits_without_spills(row: dict[str, Any]) -> None:
    assert row["spill_bytes"] == 0
    assert not row["wgmma_serialized"]
    assert row["resident_ctas"] >= row["declared_ctas"]
    assert row["declared_ctas"] == Variant.parse(row["variant"]).ctas_per_sm
    assert sass.missing(row["kernels"]) == []


def test_docs_show_the_committed_report() -> None:
    page = (ROOT / "docs" / "kernel.md").read_text()
    for row in COMMITTED["variants"]:
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row['variant']}`"))
        assert f" {row['registers']} " in line, REGENERATE
