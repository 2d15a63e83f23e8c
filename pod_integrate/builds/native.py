"""Builds, caches and loads the host libraries: ninja once per source hash, any process after.

The compiled CUDA variants are built by nvcc.py; these two need a C++ compiler only.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ninja
import tvm_ffi
from ninja import ninja_syntax

from pod_integrate import errors
from pod_integrate.builds import cache
from pod_integrate.builds.cache import Progress
from pod_integrate.errors import BuildError

logger = logging.getLogger(__name__)

# cpu: the CPU kernel. host: planner and checks of the CUDA kernel.
Kind = Literal["cpu", "host"]
_FOLDERS: dict[Kind, str] = {"cpu": "cpu", "host": "cuda"}

_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
# gcc 12 calls its own AVX-512 intrinsics maybe-uninitialized; clang does not know that warning.
_CXXFLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno "
    "-fno-trapping-math -Wall -Wextra -Wno-psabi -Wno-unknown-warning-option "
    "-Wno-maybe-uninitialized -pthread"
).split()
_X86_ISAS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c "
    "-mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma -mf16c",
    "portable": "",
}


_ERRORS = (
    *("ShapeError", "DtypeError", "PageIndexError", "ConfigInfeasibleError"),
    *("KernelUnavailableError", "DeviceMismatchError", "UnsupportedFeatureError"),
)


class _Unit(NamedTuple):
    """One object file: the kernel core is compiled once per instruction set."""

    source: Path
    name: str
    flags: list[str]


def build_id(kind: Kind) -> str:
    """Identity of the kernel's code and flags, e.g. `cpu-1a2b3c4d5e`; filed with every result."""
    return _build_id(kind)


def library_path(kind: Kind) -> Path:
    """Where the library of this build and toolchain lies once it is built."""
    return cache.directory() / f"{build_id(kind)}-{_toolchain_tag()}" / f"libpod_{kind}.so"


def build(kind: Kind, progress: Progress | None = None) -> Path:
    """Compile the library unless the cache has it, and return its path.

    progress  called as progress(done, total, what) after each compile step
    Processes that build at once wait for each other on a file lock. Raises BuildError with the
    compiler's output, or when no C++ compiler is found.
    """
    return cache.build_once(library_path(kind), lambda path: _compile(kind, path, progress))


@functools.lru_cache(maxsize=2)
def load(kind: Kind) -> Any:
    """The loaded library (a tvm_ffi.Module), built first when the cache does not have it."""
    for name in _ERRORS:
        tvm_ffi.register_error(name, getattr(errors, name))
    path = build(kind)
    logger.info("kernel %s from %s", build_id(kind), path)
    # A module that outlives the interpreter's own objects keeps its threads' code mapped.
    return tvm_ffi.load_module(str(path), keep_module_alive=True)


@functools.lru_cache(maxsize=1)
def sources_dir() -> Path:
    """Folder with the native sources: kernels/ of a checkout, else the copy in the wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "kernels", package / "_native"):
        if (folder / "cpu" / "src").is_dir():
            return folder
    raise BuildError(f"no kernel sources beside {package}; reinstall pod-attention")


@functools.lru_cache(maxsize=2)
def _build_id(kind: Kind) -> str:
    flags = (" ".join([unit.name, *_CXXFLAGS, *unit.flags]) for unit in _units(kind))
    return f"{kind}-{cache.digest(_roots(kind), ('.h', '.cpp'), flags)}"


def _root(kind: Kind) -> Path:
    return sources_dir() / _FOLDERS[kind]


def _roots(kind: Kind) -> tuple[Path, Path]:
    """The library's own sources, and those that both libraries include."""
    return _root(kind), common_dir()


def common_dir() -> Path:
    """Headers of kernels/common."""
    return sources_dir() / "common"


def _units(kind: Kind) -> list[_Unit]:
    if kind == "host":
        sources = sorted((_root(kind) / "csrc").glob("*.cpp"))
        return [_Unit(source, source.stem, []) for source in sources]
    isas = _X86_ISAS if platform.machine() == "x86_64" else {"portable": ""}
    levels = [f"-DPOD_HAS_{name.upper()}=1" for name in isas]
    units = []
    for source in sorted((_root(kind) / "src").glob("*.cpp")):
        if source.stem != "core":
            units.append(_Unit(source, source.stem, levels))
            continue
        for name, flags in isas.items():
            define = f"-DPOD_ISA_{name.upper()}=1"
            units.append(
                _Unit(source, f"core_{name}", [define, f"-DPOD_ISA={name}", *flags.split()])
            )
    return units


def _toolchain_tag() -> str:
    # Objects of another compiler or FFI version share the build id but not the file.
    compiler = cache.version_of(cache.host_compiler())
    text = f"{compiler}{tvm_ffi.__version__}{platform.machine()}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _compile(kind: Kind, path: Path, progress: Progress | None) -> None:
    folder = path.parent
    # Writer's own type comments forbid what its documentation shows.
    make_writer: Any = ninja_syntax.Writer
    with open(folder / "build.ninja", "w") as file:
        _write_ninja(make_writer(file, width=100), kind, path.name)
    command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(folder)]
    logger.info("building %s in %s", build_id(kind), folder)
    env = os.environ | {"NINJA_STATUS": "[%f/%t] "}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            step = _STEP.match(line)
            if step and progress is not None:
                progress(int(step[1]), int(step[2]), step[3].strip())
    if process.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{''.join(lines)}")
    # Readers test for the final name only, so it appears complete or not at all.
    os.replace(folder / f"{path.name}.new", path)


def _write_ninja(writer: Any, kind: Kind, library: str) -> None:
    others = tvm_ffi.libinfo.include_paths()
    writer.variable("cxx", cache.host_compiler())
    writer.variable("cxxflags", [*_CXXFLAGS, *(f"-isystem {path}" for path in others)])
    writer.variable("includes", [f"-I{root / 'include'}" for root in _roots(kind)])
    writer.rule(
        "compile",
        "$cxx $cxxflags $includes $flags -MMD -MF $out.d -c $in -o $out",
        depfile="$out.d",
        deps="gcc",
        description="compile $what",
    )
    library_folder = Path(tvm_ffi.libinfo.find_libtvm_ffi()).parent
    writer.rule(
        "link",
        f"$cxx -shared -pthread $in -L{library_folder} -ltvm_ffi -o $out",
        description="link $out",
    )
    objects: list[str] = []
    for unit in _units(kind):
        objects += writer.build(
            f"{unit.name}.o",
            "compile",
            str(unit.source),
            variables={"flags": unit.flags, "what": unit.name},
        )
    writer.build(f"{library}.new", "link", objects)
    writer.default(f"{library}.new")
