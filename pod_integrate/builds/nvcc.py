"""Compiles one variant of the CUDA kernel for one architecture, and keeps what ptxas said of it.

A library's place follows from sources, flags, variant and architecture only, so that a machine
without nvcc finds what another machine, or the wheel, has built.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pod_integrate.builds import cache, native
from pod_integrate.builds.cache import Progress
from pod_integrate.builds.report import BuildReport, is_wgmma_serialized, parse_usage
from pod_integrate.devices.cuda.limits import Architecture, require_fits, require_head_dim
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.distribution import install_command
from pod_integrate.errors import BuildError

logger = logging.getLogger(__name__)

_MIN_VERSION = (12, 4)
# nvcc knows Blackwell from here on.
_MIN_BLACKWELL = (12, 8)
_FLAGS = (
    "-std=c++17 -O3 -lineinfo -shared -cudart static -Xcompiler -fPIC,-fvisibility=hidden "
    "--resource-usage -Werror all-warnings"
).split()
_SYSTEM = "/usr/local/cuda"
_SOURCES = (".cu", ".cuh", ".h", ".cpp")


def build_id() -> str:
    """Identity of the CUDA path's code and flags, e.g. `cuda-1a2b3c4d5e`; filed with results."""
    return _build_id()


def library_id() -> str:
    """As build_id, but of what a variant is compiled from and nothing else.

    That is variant.cu, what it includes, and the flags.
    """
    return _library_id()


def sources_digest(flags: Iterable[str]) -> str:
    """Ten hex digits that follow `flags`, variant.cu and what it includes."""
    root = native.sources_dir() / "cuda"
    files = cache.included(root / "csrc" / "variant.cu", [root / "include"])
    return cache.digest_files(root, files, flags)


def library_path(variant: Variant, arch: Architecture) -> Path:
    """Where this machine keeps the library once it is built."""
    return cache.directory() / library_id() / _file_name(variant, arch)


def find_library(variant: Variant, arch: Architecture) -> Path | None:
    """The built library: this machine's, else the wheel's, else None."""
    shipped = Path(__file__).resolve().parents[1] / "_variants" / library_id()
    for path in (library_path(variant, arch), shipped / _file_name(variant, arch)):
        if path.exists():
            return path
    return None


def build(variant: Variant, arch: Architecture, progress: Progress | None = None) -> Path:
    """Compile the variant unless it is there already, and return its path.

    progress  called as progress(done, 1, what) before and after
    Raises ConfigInfeasibleError when the variant cannot run on `arch`, BuildError with the
    compiler's output, or with the remedy when there is no nvcc.
    """
    found = find_library(variant, arch)
    if found is not None:
        return found
    require_head_dim(variant.head_dim)
    require_fits(variant.config(), arch, variant.head_dim, variant.kv_bytes)
    path = library_path(variant, arch)
    return cache.build_once(path, lambda to: _compile(variant, arch, to, progress))


def find_nvcc() -> Path:
    """$CUDACXX, else the first new enough of PATH, $CUDA_HOME, /usr/local/cuda and the pip wheel.

    Raises BuildError that lists what was looked at, with the remedy.
    """
    forced = os.environ.get("CUDACXX")
    if forced:
        found = shutil.which(forced)
        if found is None:
            raise BuildError(f"CUDACXX={forced} is no program; correct or unset it")
        return _require_version(Path(found))
    seen = []
    for candidate in _candidates():
        version = nvcc_version(candidate)
        if version >= _MIN_VERSION:
            return candidate
        seen.append(f"{candidate} is {_dotted(version)}")
    raise BuildError(
        f"no nvcc {_dotted(_MIN_VERSION)} or newer: "
        f"{'; '.join(seen) or 'none in PATH, CUDA_HOME, /usr/local/cuda or as a pip wheel'}. "
        f"{_remedy()}"
    )


def is_here() -> bool:
    """Whether find_nvcc finds one."""
    try:
        find_nvcc()
    except BuildError:
        return False
    return True


def nvcc_version(nvcc: Path) -> tuple[int, int]:
    """Release of an nvcc, e.g. (13, 0); raises BuildError when it cannot be run."""
    found = re.search(r"release (\d+)\.(\d+)", cache.version_of(str(nvcc)))
    if found is None:
        raise BuildError(f"{nvcc} --version names no release; {_remedy()}")
    return int(found[1]), int(found[2])


def _remedy() -> str:
    return f"{install_command('cuda')} brings one, or set CUDACXX to an nvcc"


def wheel_folders() -> list[Path]:
    """Where the extra `cuda` puts programs; a folder need not exist."""
    spec = importlib.util.find_spec("nvidia")
    return (
        [Path(f) / "cu13" / "bin" for f in (spec.submodule_search_locations or ())] if spec else []
    )


@functools.lru_cache(maxsize=1)
def _build_id() -> str:
    roots = (native.sources_dir() / "cuda", native.common_dir())
    return f"cuda-{cache.digest(roots, _SOURCES, _FLAGS)}"


@functools.lru_cache(maxsize=1)
def _library_id() -> str:
    return f"variants-{sources_digest(_FLAGS)}"


def _file_name(variant: Variant, arch: Architecture) -> str:
    return f"libpod_{variant.name}_{arch.name}.so"


def _candidates() -> Iterator[Path]:
    homes = [home for home in (os.environ.get("CUDA_HOME"), _SYSTEM) if home]
    places = [shutil.which("nvcc")]
    places += [shutil.which("nvcc", path=str(Path(home) / "bin")) for home in homes]
    places += [shutil.which("nvcc", path=str(folder)) for folder in wheel_folders()]
    for place in dict.fromkeys(places):
        if place is not None:
            yield Path(place)


def _require_version(nvcc: Path, least: tuple[int, int] = _MIN_VERSION, why: str = "") -> Path:
    version = nvcc_version(nvcc)
    if version < least:
        raise BuildError(
            f"{nvcc} is {_dotted(version)}, {_dotted(least)} or newer is needed{why}. {_remedy()}"
        )
    return nvcc


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _command(nvcc: Path, variant: Variant, arch: Architecture, output: Path) -> list[str]:
    root = native.sources_dir() / "cuda"
    target = arch.name.removeprefix("sm_")
    return [
        *(str(nvcc), *_FLAGS, "-ccbin", cache.host_compiler()),
        *("-gencode", f"arch=compute_{target},code=sm_{target}", "-I", str(root / "include")),
        *variant.defines(variant.prefill_engine(arch)),
        *(str(root / "csrc" / "variant.cu"), "-o", str(output)),
    ]


def _compile(variant: Variant, arch: Architecture, path: Path, progress: Progress | None) -> None:
    nvcc = find_nvcc()
    if arch.capability >= (10, 0):
        _require_version(nvcc, _MIN_BLACKWELL, f" for {arch.name}")
    compiler = f"nvcc {_dotted(nvcc_version(nvcc))}"
    if progress is not None:
        progress(0, 1, f"{variant.name} for {arch.name} with {compiler}")
    else:
        # The call that needs it waits for it, without a word from anybody else.
        logger.warning("compiling %s for %s with %s, once", variant.name, arch.name, compiler)
    new = path.with_suffix(".new")
    began = time.monotonic()
    said = cache.said_by(_command(nvcc, variant, arch, new))
    seconds = round(time.monotonic() - began, 1)
    made = BuildReport(
        variant=variant.name,
        arch=arch.name,
        build=library_id(),
        compiler=compiler,
        seconds=seconds,
        kernels=parse_usage(said),
        wgmma_serialized=is_wgmma_serialized(said),
    )
    made.write(path)
    # Readers test for the library only, so it comes last and whole.
    os.replace(new, path)
    text = f"{variant.name} for {arch.name}: {seconds} s, {made.registers} registers"
    if progress is not None:
        progress(1, 1, text)
    logger.info("built %s", text)
