"""Compiles every shipped variant of the CUDA kernel for every architecture; no GPU is needed.

    python benchmarks/kernel_build.py [--jobs N]

For each: registers, spills and shared memory as ptxas tells them, the CTAs that an SM then holds,
and the instructions of its machine code. Takes fifteen minutes on one core, two when the libraries
are cached. Results go to benchmarks/results; in a checkout the table of docs/kernel.md is redrawn.
Ends with exit code 1 when a variant spills, does not fit its CTAs per SM or lacks an instruction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks import _results
from pod_integrate.builds import nvcc, sass
from pod_integrate.builds.report import BuildReport
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, shipped

COMMAND = "python benchmarks/kernel_build.py"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "kernel.md"
BEGIN, END = "<!-- variants:begin -->", "<!-- variants:end -->"
_SHOWN = (*sass.INTENDED, "HGMMA", "BAR")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once")
    sass.find_cuobjdump()
    rows = build_all(parser.parse_args().jobs)
    spilling = [row for row in rows if row["spill_bytes"]]
    document = {
        "command": COMMAND,
        "library": nvcc.library_id(),
        "compiler": sorted({row.pop("compiler") for row in rows}),
        "variants_built": len(rows),
        "variants_with_spills": len(spilling),
        "variants": rows,
    }
    path = _results.write("kernel_build", document)
    _results.record_headline("kernel.variants_built", len(rows), "variants", COMMAND)
    _results.record_headline("kernel.variants_with_spills", len(spilling), "variants", COMMAND)
    if PAGE.exists():
        PAGE.write_text(render(PAGE.read_text(), rows))
    print(f"{path}: {len(rows)} variants, {len(spilling)} with spills")
    wrong = [text for row in rows for text in problems(row)]
    if wrong:
        sys.exit("\n".join(wrong))


def build_all(jobs: int) -> list[Row]:
    """One row per architecture and shipped variant, in their order; prints as they are built."""
    wanted = [(v, arch) for arch in limits.ARCHITECTURES.values() for v in shipped(arch)]
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(build, *pair): pair for pair in wanted}
        for done, future in enumerate(as_completed(running), start=1):
            row = future.result()
            print(
                f"[{done}/{len(wanted)}] {row['variant']} {row['arch']}: {row['registers']} "
                f"registers, {row['spill_bytes']} B spilled, {row['resident_ctas']} CTAs/SM",
                flush=True,
            )
        return [future.result() for future in running]


def build(variant: Variant, arch: limits.Architecture) -> Row:
    """Compile one variant, or take it from the cache, and look at it."""
    library = nvcc.build(variant, arch, progress=lambda *_: None)
    report, counts = BuildReport.read(library), sass.count_instructions(library)
    return {
        "variant": variant.name,
        "arch": arch.name,
        "compiler": report.compiler,
        "registers": report.registers,
        "spill_bytes": report.spills,
        "smem_bytes": report.smem,
        "wgmma_serialized": report.wgmma_serialized,
        "declared_ctas": variant.ctas_per_sm,
        "resident_ctas": report.resident_ctas,
        "kernels": {
            kernel.name: {"registers": kernel.registers, **counts[kernel.name]}
            for kernel in sorted(report.kernels, key=lambda kernel: kernel.name)
        },
    }


def problems(row: Row) -> Iterator[str]:
    """What is wrong with a row, in words."""
    name = f"{row['variant']} {row['arch']}"
    if row["spill_bytes"]:
        spilled = f"{name} spills {row['spill_bytes']} B"
        yield f"{spilled}; choose smaller tiles in limits.py or variants.py"
    if row["wgmma_serialized"]:
        yield f"{name}: ptxas serialized its wgmma; see prefill_wgmma_item.cuh on turns of the loop"
    if row["resident_ctas"] < row["declared_ctas"]:
        yield f"{name}: an SM holds {row['resident_ctas']} of {row['declared_ctas']} CTAs"
    for text in sass.missing(row["kernels"]):
        yield f"{name}: {text}"


def render(page: str, rows: list[Row]) -> str:
    """The page with the table between its markers redrawn."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return "\n".join([f"{head}{BEGIN}", *table(rows), f"{END}{tail}"])


def table(rows: list[Row]) -> list[str]:
    """Markdown: one line per variant, registers per thread by architecture."""
    archs = list(limits.ARCHITECTURES)
    spilling = sum(row["spill_bytes"] > 0 for row in rows)
    fitting = sum(row["resident_ctas"] >= row["declared_ctas"] for row in rows)
    lines = [
        f"{len(rows)} builds: {spilling} with spills, {fitting} that fit their CTAs per SM. "
        "Registers per thread by architecture;",
        "`-` where a variant is not shipped. Instructions are those of the fused kernel on the "
        "first architecture.",
        "",
        f"| variant | CTAs/SM | KiB/CTA | {' | '.join(archs)} | {' | '.join(_SHOWN)} |",
        f"|---|{'--:|' * (2 + len(archs) + len(_SHOWN))}",
    ]
    by_variant: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], {})[row["arch"]] = row
    return [*lines, *(_line(name, found, archs) for name, found in sorted(by_variant.items()))]


def _line(name: str, found: dict[str, Row], archs: list[str]) -> str:
    first = next(iter(found.values()))
    counts = first["kernels"]["fused"]
    registers = (str(found[arch]["registers"]) if arch in found else "-" for arch in archs)
    cells = (
        f"`{name}`",
        str(first["declared_ctas"]),
        f"{first['smem_bytes'] / 1024:.1f}",
        *registers,
        *(str(counts[kind]) for kind in _SHOWN),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
