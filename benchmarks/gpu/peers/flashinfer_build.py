"""FlashInfer's kernels of the peers, compiled without a GPU and packed for a machine that has one.

FlashInfer compiles nothing that lies in its folder data/aot: unpack the archive there
(`python -m tarfile -e ARCHIVE .../flashinfer/data/aot`). FLASHINFER_DISABLE_JIT=1 then refuses what
is missing instead of compiling it. The libraries belong to the FlashInfer that generated them, and
to one architecture. They hold the masks that the peers ask for; a call with another one answers
cudaErrorNotSupported. BatchPOD has sixteen pairs of masks, each some minutes of a core.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.gpu.common.output import Output
from benchmarks.gpu.peers.flashinfer_toolkit import end_of, missing_headers, toolkit
from pod_integrate.builds import cache, nvcc
from pod_integrate.devices.cuda.limits import Architecture
from pod_integrate.errors import BuildError
from pod_integrate.model.floors import CASES

_HOPPER = 9
# Of the published cases; nothing else is measured against BatchPOD.
_POD_HEAD_DIM = 128
# Chunks are causal, decodes have no mask; what has none in its name is needed whatever is asked.
_NEEDED = (
    "batch_pod_kernel_mask_1p_0d",
    "batch_prefill_paged_kernel_mask_0",
    "batch_prefill_paged_kernel_mask_1",
    "batch_prefill_paged_sm90_kernel_mask_1",
    "batch_attention_paged_kernel_mask_1",
)
_OF_FLASHINFER = "_ZN10flashinfer"
_NOT_SUPPORTED = 801


class Spec(Protocol):
    """What is used of FlashInfer's JitSpec."""

    name: str
    sources: list[Path]

    def build(self) -> None:
        """Compile what is missing or older than its sources."""

    def get_library_path(self) -> Path:
        """Where `build` leaves the library."""


def prepare(arch: Architecture, jobs: int) -> Path:
    """Tell FlashInfer by its environment what to compile for and with; its folder of builds.

    It reads some of that when it is imported. Raises BuildError when it is missing or too late.
    """
    if importlib.util.find_spec("flashinfer") is None:
        raise BuildError("FlashInfer is not installed; pip install flashinfer-python==0.7.2")
    # FLASHINFER_WORKSPACE_BASE is FlashInfer's own setting: a folder to go on in.
    base = Path(os.environ.get("FLASHINFER_WORKSPACE_BASE") or cache.directory() / "flashinfer")
    os.environ["CUDA_HOME"] = str(toolkit(nvcc.find_nvcc(), base / "toolkit"))
    os.environ.update(
        FLASHINFER_WORKSPACE_BASE=str(base),
        FLASHINFER_CUDA_ARCH_LIST=arch_list(arch),
        MAX_JOBS=str(jobs),
        # Where pip has put ninja.
        PATH=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    )
    if headers := missing_headers(Path(os.environ["CUDA_HOME"])):
        os.environ["CPATH"] = os.pathsep.join(filter(None, (os.environ.get("CPATH"), headers)))
    return base


def arch_list(arch: Architecture) -> str:
    """As FlashInfer names an architecture: `9.0a` for sm_90a."""
    major, minor = arch.capability
    return arch.name.replace(f"sm_{major}{minor}", f"{major}.{minor}")


def specs(head_dims: Sequence[int], arch: Architecture) -> list[Spec]:
    """The modules that the peers load for bf16; BatchPOD, the longest, comes first.

    Raises BuildError when this FlashInfer makes them in another way.
    """
    try:
        return [spec for dim in head_dims for spec in _of_head_dim(dim, arch)]
    except (AttributeError, TypeError) as error:
        raise BuildError(f"FlashInfer makes its modules otherwise than 0.7.2: {error}") from error


def _of_head_dim(dim: int, arch: Architecture) -> Iterable[Any]:
    import torch
    from flashinfer.jit.attention import modules

    dtypes, index = (torch.bfloat16,) * 3, torch.int32
    plain = (0, False, False)  # no position encoding, window or cap
    if dim == _POD_HEAD_DIM:
        yield modules.gen_batch_pod_module(*dtypes, dim, *plain, False, index, *plain)
    if arch.capability[0] == _HOPPER:
        yield modules.gen_batch_prefill_module("fa3", *dtypes, index, dim, dim, *plain, False)
    # Of the cache K and V have one stride, so the primaries are what is loaded.
    yield modules._gen_batch_prefill_primary_module("fa2", *dtypes, index, dim, dim, *plain, False)
    yield modules.gen_batch_decode_module(*dtypes, index, dim, dim, *plain)
    yield modules._gen_batch_attention_primary_module(*dtypes, index, dim, dim, 0, False, False)
    if arch.capability[0] == _HOPPER:
        yield from _of_xqa(dim)


def _of_xqa(dim: int) -> Iterable[Any]:
    """XQA for the groups and page sizes of the published cases."""
    import torch
    from flashinfer.jit.xqa import gen_xqa_module

    kinds = {(case.page_size, case.num_q_heads // case.num_kv_heads) for case in CASES}
    for page_size, group in sorted(kinds):
        yield gen_xqa_module(
            *(torch.bfloat16, torch.bfloat16, page_size, dim, group, False, torch.bfloat16)
        )


def build(wanted: Iterable[Spec], document: dict[str, Any], output: Output) -> list[Spec]:
    """Compile one after the other, with all jobs each; what succeeded. Errors are recorded."""
    built = []
    for spec in wanted:
        began = time.monotonic()
        try:
            _build_needed(spec)
            built.append(spec)
        except Exception as error:
            document["errors"][spec.name] = end_of(f"{type(error).__name__}: {error}")
        document["seconds"][spec.name] = round(time.monotonic() - began, 1)
        output.save(document)
        print(f"{spec.name}: {'ok' if spec in built else 'FAILED'}", flush=True)
    return built


def _build_needed(spec: Spec) -> None:
    spec.sources = [s for s in spec.sources if "_mask_" not in s.stem or s.stem in _NEEDED]
    spec.build()
    library = spec.get_library_path()
    refused = undefined(library)
    if refused:
        stub = library.with_name("left_out.cpp")
        stub.write_text(refusals(refused))
        spec.sources = [*spec.sources, stub]
        spec.build()


def undefined(library: Path) -> list[str]:
    """FlashInfer's own functions that a library calls and lacks, as the linker names them."""
    command = ["nm", "--dynamic", "--undefined-only", "--format=posix", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = (line.split()[0] for line in done.stdout.splitlines())
    return [name for name in names if name.startswith(_OF_FLASHINFER)]


def refusals(names: Sequence[str]) -> str:
    """C++ that defines functions of these linker names, each of which answers not supported."""
    return "".join(
        f'extern "C" int refused_{i}() __asm__("{name}");\n'
        f'extern "C" int refused_{i}() {{ return {_NOT_SUPPORTED}; }}\n'
        for i, name in enumerate(names)
    )


def pack(built: Iterable[Spec], archive: Path) -> int:
    """Write the libraries as data/aot holds them, name/name.so; the archive's size in bytes.

    gzip, which every tar and every Python reads; the kernels inside are compressed already.
    """
    new = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tarfile.open(new, "w:gz") as tar:
        for spec in built:
            tar.add(spec.get_library_path(), f"{spec.name}/{spec.name}.so")
    os.replace(new, archive)
    return archive.stat().st_size


def run(arch: Architecture, head_dims: Sequence[int], jobs: int, folder: Path) -> dict[str, Any]:
    """Build everything and pack it in `folder`; what is said of it, also in peers_build.json."""
    prepare(arch, jobs)
    import flashinfer

    output = Output(folder, "peers_build")
    document: dict[str, Any] = {
        "arch": arch.name,
        "flashinfer": flashinfer.__version__,
        "compiler": cache.version_of(str(nvcc.find_nvcc())).splitlines()[-2:],
        "seconds": {},
        "errors": {},
    }
    built = build(specs(head_dims, arch), document, output)
    archive = folder / f"flashinfer-{flashinfer.__version__}-{arch.name}.tar.gz"
    if built:
        document["bytes"] = pack(built, archive)
        document["archive"] = str(archive)
    output.save(document)
    return document
