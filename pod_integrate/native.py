"""Builds, caches and loads the native kernels: ninja once per source hash, any process after."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock
import ninja
import platformdirs
import tvm_ffi
from ninja import ninja_syntax

from pod_integrate import errors, settings
from pod_integrate.errors import BuildError

logger = logging.getLogger(__name__)

Kind = Literal["cpu"]
Progress = Callable[[int, int, str], None]

_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_LOCK_SECONDS = 600
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
    return _cache_dir() / f"{build_id(kind)}-{_toolchain_tag()}" / f"libpod_{kind}.so"


def build(kind: Kind, progress: Progress | None = None) -> Path:
    """Compile the library unless the cache has it, and return its path.

    progress  called as progress(done, total, what) after each compile step
    Processes that build at once wait for each other on a file lock. Raises BuildError with the
    compiler's output, or when no C++ compiler is found.
    """
    path = library_path(kind)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            if not path.exists():
                _compile(kind, path, progress)
    except filelock.Timeout as error:
        raise BuildError(
            f"another process has held {error.lock_file} for {_LOCK_SECONDS} s; end it and retry"
        ) from error
    return path


@functools.lru_cache(maxsize=1)
def load(kind: Kind) -> Any:
    """The loaded library (a tvm_ffi.Module), built first when the cache does not have it."""
    for name in ("ShapeError", "DtypeError", "PageIndexError", "ConfigInfeasibleError"):
        tvm_ffi.register_error(name, getattr(errors, name))
    tvm_ffi.register_error("KernelUnavailableError", errors.KernelUnavailableError)
    path = build(kind)
    logger.info("kernel %s from %s", build_id(kind), path)
    # A module that outlives the interpreter's own objects keeps its threads' code mapped.
    return tvm_ffi.load_module(str(path), keep_module_alive=True)


@functools.lru_cache(maxsize=1)
def sources_dir() -> Path:
    """Folder with the native sources: kernels/ of a checkout, else the copy in the wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "kernels", package / "_native"):
        if (folder / "cpu" / "src").is_dir():
            return folder
    raise BuildError(f"no kernel sources beside {package}; reinstall pod-attention")


@functools.lru_cache(maxsize=1)
def _build_id(kind: Kind) -> str:
    digest = hashlib.sha256()
    root = sources_dir() / kind
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".h", ".cpp")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    for unit in _units(kind):
        digest.update(" ".join([unit.name, *_CXXFLAGS, *unit.flags]).encode())
    return f"{kind}-{digest.hexdigest()[:10]}"


def _units(kind: Kind) -> list[_Unit]:
    isas = _X86_ISAS if platform.machine() == "x86_64" else {"portable": ""}
    levels = [f"-DPOD_HAS_{name.upper()}=1" for name in isas]
    units = []
    for source in sorted((sources_dir() / kind / "src").glob("*.cpp")):
        if source.stem != "core":
            units.append(_Unit(source, source.stem, levels))
            continue
        for name, flags in isas.items():
            define = f"-DPOD_ISA_{name.upper()}=1"
            units.append(
                _Unit(source, f"core_{name}", [define, f"-DPOD_ISA={name}", *flags.split()])
            )
    return units


def _cache_dir() -> Path:
    chosen = settings.load().cache_dir
    return chosen or Path(platformdirs.user_cache_dir("pod-attention")) / "native"


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    candidates = [wanted] if wanted else ["g++", "clang++"]
    for name in candidates:
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(
        f"no C++ compiler: looked for {', '.join(candidates)}. Install one (apt install g++) or "
        "set CXX to a C++17 compiler"
    )


@functools.lru_cache(maxsize=4)
def _version_of(compiler: str) -> str:
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout


def _toolchain_tag() -> str:
    # Objects of another compiler or FFI version share the build id but not the file.
    text = f"{_version_of(_compiler())}{tvm_ffi.__version__}{platform.machine()}"
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
    includes = [str(sources_dir() / kind / "include"), *tvm_ffi.libinfo.include_paths()]
    writer.variable("cxx", _compiler())
    writer.variable("cxxflags", [*_CXXFLAGS, *(f"-isystem {i}" for i in includes[1:])])
    writer.variable("includes", f"-I{includes[0]}")
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
