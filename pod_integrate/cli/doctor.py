"""`pod-attn doctor`: what this machine is, which kernel runs and why, what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable

import httpx
import torch

from pod_integrate import settings
from pod_integrate.builds import cache, native, nvcc
from pod_integrate.cli.findings import Finding, Status
from pod_integrate.devices.cpu.processor import num_threads
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.registry import device_of, has_gpu
from pod_integrate.distribution import install_command, version
from pod_integrate.errors import BuildError, PodAttentionError, TableError
from pod_integrate.live import shipped
from pod_integrate.live.registry import ActiveTable, read_file
from pod_integrate.redact import public_url, redact
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

_HEAD_DIM = 128
_GEOMETRY = Geometry.uniform((1, 1, _HEAD_DIM), "bf16", page_size=1)
# What is looked for, and the extra of ours that brings it; None: we cannot be without.
_PACKAGES = {
    "torch": None,
    "apache-tvm-ffi": None,
    "sglang": "sglang",
    "transformers": "transformers",
    "ray": "tuner",
    "optuna": "tuner",
}


def examine() -> list[Finding]:
    """Look at everything; a check that itself fails becomes a finding, never an exception."""
    findings = [_machine()]
    for name, check in (
        ("accelerator", _accelerator),
        ("settings", _settings),
        ("kernel", _kernel),
        ("cache", _cache),
        ("build", _build),
        ("GPU kernel", _gpu_kernel),
        ("nvcc", _nvcc),
        ("saved table", _saved_table),
        ("shipped tables", _shipped_tables),
        ("SGLang plug-in", _plugin),
        ("tuner", _tuner),
    ):
        findings.append(_guarded(name, check))
    findings.extend(_versions())
    return findings


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except PodAttentionError as error:
        return Finding(name, f"{type(error).__name__}: {error}", "missing", "see the message")


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding(
        "machine",
        f"pod-attention {version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}",
    )


def _accelerator() -> Finding:
    keys = _gpu_keys()
    if not keys:
        return Finding("accelerator", "none: SGLang serves through the pod_cpu platform")
    names = (f"cuda:{i} {key.name} {key.capability}, {key.units} SMs" for i, key in enumerate(keys))
    return Finding("accelerator", "; ".join(names))


def _gpu_keys() -> list[DeviceKey]:
    if not has_gpu():
        return []
    return [device_of(torch.device("cuda", i)).key for i in range(torch.cuda.device_count())]


def _settings() -> Finding:
    chosen = settings.load()
    sample = f"{chosen.trace_sample:g} of steps traced"
    return Finding("settings", f"{sample}, table {chosen.table or 'not saved'}")


def _kernel() -> Finding:
    key = device_of(torch.device("cpu")).key
    forced = os.environ.get("POD_ATTN_ISA")
    why = f"POD_ATTN_ISA={forced}" if forced else "the best instruction set of this CPU"
    return Finding(
        "kernel",
        f"CPU kernel, {key.capability} ({why}), {num_threads()} threads; "
        f"tables are filed under {key}",
    )


def _cache() -> Finding:
    return Finding("cache", f"builds go to {cache.require_writable()}")


def _build() -> Finding:
    path = native.library_path("cpu")
    if path.exists():
        return Finding("build", f"{native.build_id('cpu')} at {path}")
    return Finding(
        "build", "not built yet: the first start compiles it", "note", "pod-attn build does it now"
    )


def _gpu_kernel() -> Finding:
    """Which library a call on each GPU opens, by the example of the default at head dim 128."""
    lines: list[str] = []
    status: Status = "ok"
    remedy = ""
    for arch in dict.fromkeys(limits.architecture(key.capability) for key in _gpu_keys()):
        variant = Variant.of(limits.default_tiles(arch, _HEAD_DIM), _GEOMETRY)
        path = nvcc.find_library(variant, arch)
        lines.append(f"{variant.name} for {arch.name}: {path or 'not built yet'}")
        if path is None:
            # Without a compiler the first call fails; with one it only takes longer.
            status, remedy = "note", "pod-attn build does it now"
            nvcc.find_nvcc()
    value = "; ".join([nvcc.build_id(), *lines])
    return Finding("GPU kernel", value if lines else f"{value}, no GPU to run it", status, remedy)


def _nvcc() -> Finding:
    try:
        path = nvcc.find_nvcc()
    except BuildError as error:
        return Finding("nvcc", str(error), "note", "needed to compile variants for GPUs only")
    major, minor = nvcc.nvcc_version(path)
    return Finding("nvcc", f"{major}.{minor} at {path}")


def _saved_table() -> Finding:
    """Whether a server here would take the table of POD_ATTN_TABLE, read as it reads it."""
    name, path = "saved table", settings.load().table
    if path is None:
        return Finding(name, "POD_ATTN_TABLE is not set: nothing is kept over restarts")
    # Servers log a table that they reject and run their defaults.
    try:
        data = read_file(path)
        table = ConfigTable.from_json(data)
    except FileNotFoundError:
        return Finding(name, f"none at {path} yet", "note", "defaults apply until a tuner has one")
    except (OSError, TableError) as error:
        return Finding(name, f"{path}: {error}", "missing", "correct or unset POD_ATTN_TABLE")
    builds = {device_of(torch.device("cpu")).key: native.build_id("cpu")}
    builds |= dict.fromkeys(_gpu_keys(), nvcc.build_id())
    try:
        if table.device not in builds:
            here = ", ".join(map(str, builds))
            raise TableError(f"table is for device {table.device}, this machine has {here}")
        ActiveTable(table.geometry, table.device, builds[table.device]).offer(data)
    except TableError as error:
        remedy = "not used, defaults apply: a tuner finds configs for this device and build"
        return Finding(name, f"{path}: {error}", "note", remedy)
    text = f"version {table.version}, {len(table.entries)} buckets of {table.geometry}"
    return Finding(name, f"{text} at {path}")


def _shipped_tables() -> Finding:
    """What comes tuned on the GPUs of this machine, or why nothing does."""
    name = "shipped tables"
    if not settings.load().shipped_tables:
        return Finding(name, "off: POD_ATTN_SHIPPED_TABLES=0", "note", "unset it to start tuned")
    try:
        tables = shipped.everything()
    except TableError as error:
        # Servers log it and run their defaults.
        return Finding(name, str(error), "note", "install the package again")
    keys, build = _gpu_keys(), nvcc.build_id()
    if not keys:
        devices = ", ".join(sorted({str(table.device) for table in tables}))
        return Finding(name, f"for {devices or 'no device yet'}; no GPU here")
    lines: list[str] = []
    status: Status = "ok"
    for key in dict.fromkeys(keys):
        mine = [table for table in tables if table.device == key]
        used = [table for table in mine if table.build == build]
        buckets = sum(len(table.entries) for table in used)
        text = f"{key}: {len(used)} geometries, {buckets} buckets"
        if len(used) < len(mine):
            others = ", ".join(sorted({table.build for table in mine} - {build}))
            text += f"; {len(mine) - len(used)} not used, measured with {others}, this is {build}"
        if not used:
            status = "note"
        lines.append(text)
    remedy = "" if status == "ok" else "defaults apply; a tuner finds configs for this device"
    return Finding(name, "; ".join(lines), status, remedy)


def _plugin() -> Finding:
    groups = {"sglang.srt.plugins": "pod", "sglang.srt.platforms": "pod_cpu"}
    for group, name in groups.items():
        if name not in importlib.metadata.entry_points(group=group).names:
            return Finding(
                "SGLang plug-in", f"{name} is not registered", "missing", "reinstall pod-attention"
            )
    return Finding("SGLang plug-in", "attention backend pod, platform pod_cpu")


def _tuner() -> Finding:
    url = settings.load().tuner_url
    if not url:
        return Finding(
            "tuner", "POD_ATTN_TUNER_URL is not set: defaults or the saved table apply", "note"
        )
    shown = public_url(url)
    try:
        # As the server itself will ask: past a proxy that is set for downloads.
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=3.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = redact(error, url)
        return Finding("tuner", f"{shown} does not answer: {said}", "note", "pod-attn tuner up")
    remedy = "" if answer.is_success else "its log says why; servers go on without it"
    said = f"{shown} answers {answer.status_code}"
    return Finding("tuner", said, "note" if remedy else "ok", remedy)


def _versions() -> list[Finding]:
    findings = []
    for package, extra in _PACKAGES.items():
        try:
            findings.append(Finding(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            status: Status = "note" if extra else "missing"
            remedy = install_command(extra) if extra else "reinstall pod-attention"
            findings.append(Finding(package, "not installed", status, remedy))
    return findings
