"""`pod-attn build`: which libraries are wanted, their compilation, and a table of what came out."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from pod_integrate.builds import native, nvcc
from pod_integrate.builds.report import BuildReport
from pod_integrate.cli.paths import write_whole
from pod_integrate.cli.terminal import Cell, Figures, styled
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, defaults, of_pairs, shipped
from pod_integrate.devices.emulated import emulator_build
from pod_integrate.devices.registry import device_of, has_gpu
from pod_integrate.errors import ConfigError

_EVERY = "all"
# The emulated SM has no limits of its own; variants for it are chosen as for this one.
_EMULATED = "sm_90a"


def run(
    console: Console,
    *,
    archs: list[str],
    every: bool,
    names: list[str],
    on_emulator: bool,
    jobs: int,
    report: Path | None = None,
) -> None:
    """Compile what the flags name; without flags what this machine runs, GPU or not.

    report  file that gets the reports of all variants for GPUs, as a JSON list
    """
    _require_compatible(archs, names, every, on_emulator, report)
    here = not (archs or every or names or on_emulator) and not has_gpu()
    # A name that is wrong is told before minutes of compiling.
    wanted = [] if here else _wanted(archs, every, names, on_emulator)
    _host_libraries(console)
    if here:
        return
    if on_emulator:
        _run_all(console, jobs, ((v.name, _emulated(v)) for v, _ in wanted))
        return
    built = _run_all(console, jobs, ((f"{v.name} {a.name}", _by_nvcc(v, a)) for v, a in wanted))
    reports = [BuildReport.read(path) for path in built]
    if report is not None:
        text = msgspec.json.format(msgspec.json.encode(reports))
        write_whole(report, text + b"\n")
    console.print(table(reports))


def _wanted(
    archs: list[str], every: bool, names: list[str], on_emulator: bool
) -> list[tuple[Variant, limits.Architecture]]:
    targets = [limits.ARCHITECTURES[_EMULATED]] if on_emulator else _targets(archs)
    return [(variant, arch) for arch in targets for variant in _variants(arch, every, names)]


def table(reports: Iterable[BuildReport]) -> Figures:
    """One row per variant and architecture; spills and missing residency are marked."""
    view = Figures(("variant", "arch", "registers", "spills B", "smem KiB", "CTAs/SM", "seconds"))
    for report in reports:
        declared = Variant.parse(report.variant).ctas_per_sm
        fits = report.resident_ctas >= declared
        view.add_row(
            report.variant,
            report.arch,
            str(report.registers),
            _red(str(report.spills)) if report.spills else "0",
            f"{report.smem / 1024:.1f}",
            str(declared) if fits else _red(f"{report.resident_ctas} of {declared}"),
            f"{report.seconds:.1f}",
        )
    return view


def _red(text: str) -> Cell:
    return styled((text, "red"))


def _require_compatible(
    archs: list[str], names: list[str], every: bool, on_emulator: bool, report: Path | None
) -> None:
    if every and names:
        raise ConfigError("--all and --variant exclude each other; leave one out")
    if on_emulator and (archs or report):
        raise ConfigError("--emulator has no --arch and no --report; leave them out")


def _host_libraries(console: Console) -> None:
    for kind in ("cpu", "host"):
        path = native.build(
            kind, progress=lambda done, total, what: console.print(f"[{done}/{total}] {what}")
        )
        console.print(f"{native.build_id(kind)} ready at {path}", soft_wrap=True)


def _targets(archs: list[str]) -> list[limits.Architecture]:
    if _EVERY in archs:
        return list(limits.ARCHITECTURES.values())
    unknown = [name for name in archs if name not in limits.ARCHITECTURES]
    if unknown:
        raise ConfigError(
            f"--arch {unknown[0]} is unknown; "
            f"known are {', '.join(limits.ARCHITECTURES)} and {_EVERY}"
        )
    if archs:
        return [limits.ARCHITECTURES[name] for name in dict.fromkeys(archs)]
    if not has_gpu():
        raise ConfigError(
            f"this machine has no GPU to build for; name one with --arch: "
            f"{', '.join(limits.ARCHITECTURES)} or {_EVERY}"
        )
    devices = (torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    found = [limits.architecture(device_of(device).key.capability) for device in devices]
    return list(dict.fromkeys(found))


def _variants(arch: limits.Architecture, every: bool, names: list[str]) -> list[Variant]:
    if names:
        return [Variant.parse(name) for name in names]
    if every:
        return shipped(arch)
    return defaults(arch) + of_pairs(arch)


def _by_nvcc(variant: Variant, arch: limits.Architecture) -> Callable[[], Path]:
    return lambda: nvcc.build(variant, arch, progress=lambda *_: None)


def _emulated(variant: Variant) -> Callable[[], Path]:
    return lambda: emulator_build.build(variant)


def _run_all(
    console: Console, jobs: int, tasks: Iterable[tuple[str, Callable[[], Path]]]
) -> list[Path]:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(task): name for name, task in tasks}
        try:
            for done, future in enumerate(concurrent.futures.as_completed(running), 1):
                future.result()
                console.print(f"[{done}/{len(running)}] {running[future]}", soft_wrap=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in running]
