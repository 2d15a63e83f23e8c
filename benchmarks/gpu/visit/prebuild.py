"""Compiles what the other parts use, all at once, so that none of them waits for a compiler.

With --peers: FlashInfer's kernels instead, for another machine; no GPU is needed. They are packed
in --out, to be unpacked in the data/aot of that machine's FlashInfer.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.common.compiled import workers
from benchmarks.gpu.common.machines import compiled_for
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.correctness import conformance_build
from benchmarks.gpu.correctness.cases import byte_checks, feasible
from benchmarks.gpu.peers import flashinfer_build
from benchmarks.gpu.speed.sweep_space import sweep_variants
from pod_integrate.builds import native, nvcc
from pod_integrate.builds.report import BuildReport
from pod_integrate.devices.cuda import limits, variants
from pod_integrate.devices.cuda.limits import Architecture
from pod_integrate.devices.cuda.variants import Variant

_HEAD_DIM = 128


def jobs(arch: Architecture | None) -> dict[str, Callable[[], object]]:
    """Name and compilation of everything; what first contact needs comes first."""
    wanted: dict[str, Callable[[], object]] = {
        "host": lambda: native.build("host"),
        "conformance, emulator": conformance_build.build_emulator,
    }
    if arch is None:
        return wanted
    wanted[f"conformance, {arch.name}"] = lambda: conformance_build.build_gpu(arch)
    of_checks = [
        Variant.of(check.config, check.geometry)
        for check in byte_checks(arch)
        if feasible(check, arch)
    ]
    for variant in dict.fromkeys([*variants.shipped(arch), *of_checks, *sweep_variants(arch)]):
        wanted[variant.name] = lambda variant=variant: nvcc.build(variant, arch)  # type: ignore[misc]
    return wanted


def run(arch: Architecture | None, workers: int, output: Output) -> dict[str, Any]:
    """Compile in parallel; an error is recorded and the others go on. No arch: the host's part."""
    document: dict[str, Any] = {"arch": arch and arch.name, "seconds": {}, "errors": {}}
    document["spills"] = {}
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(work): name for name, work in jobs(arch).items()}
        for done in concurrent.futures.as_completed(running):
            name = running[done]
            error = done.exception()
            if error is not None:
                document["errors"][name] = f"{type(error).__name__}: {error}"[:2000]
                print(f"FAILED {name}: {str(error)[-600:]}", flush=True)
            document["seconds"][name] = round(time.monotonic() - began, 1)
            if arch is not None:
                _note_spills(name, arch, document)
            output.save(document)
    return document


def _note_spills(name: str, arch: Architecture, document: dict[str, Any]) -> None:
    if not name.startswith(variants.DTYPES) or name in document["errors"]:
        return
    path = nvcc.find_library(Variant.parse(name), arch)
    spills = BuildReport.read(path).spills if path is not None else 0
    if spills:
        document["spills"][name] = spills


def main(arguments: list[str] | None = None) -> None:
    """Build for the current device, or for --arch without one."""
    parser = argparse.ArgumentParser(prog="prebuild", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", choices=limits.ARCHITECTURES, help="default: the current one")
    parser.add_argument("--workers", type=int, default=workers())
    parser.add_argument(
        "--peers", action="store_true", help="FlashInfer's kernels instead, as an archive in --out"
    )
    parser.add_argument(
        "--head-dims", type=int, nargs="+", default=[_HEAD_DIM], help="with --peers; default 128"
    )
    add_output(parser)
    options = parser.parse_args(arguments)
    arch = limits.ARCHITECTURES[options.arch] if options.arch else compiled_for(options.backend)
    if options.peers:
        _peers(arch, options)
        return
    document = run(arch, options.workers, Output(options.out, "prebuild"))
    print(
        f"built {len(document['seconds']) - len(document['errors'])}, failed "
        f"{len(document['errors'])}, with spills {len(document['spills'])}, "
        f"{max(document['seconds'].values()):.0f} s"
    )


def _peers(arch: Architecture | None, options: argparse.Namespace) -> None:
    if arch is None:
        sys.exit("prebuild: --peers needs an --arch; the emulated SM runs no kernel of FlashInfer")
    document = flashinfer_build.run(arch, options.head_dims, options.workers, options.out)
    for name, error in document["errors"].items():
        print(f"FAILED {name}: {error}")
    if document["errors"]:
        sys.exit(1)
    print(f"{document['archive']}: {document['bytes'] / 2**20:.1f} MiB")
