"""Builds test programs on the emulated GPU, once per content of their sources."""

from __future__ import annotations

import getpass
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "kernels" / "emulator"
INCLUDES = (ROOT / "kernels" / "cuda" / "include", EMULATOR / "include")
TESTS = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-march=native", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
# ThreadSanitizer sees calls of memcpy in the emulator, too. Which of them are calls would be up to
# the CPU that is compiled for: so all are.
TSAN_FLAGS = ("-fsanitize=thread", "-fno-builtin", "-DPOD_EMULATOR_TSAN")


def build_program(name: str, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """Compiles `sources`, with `flags`, and the emulator; -D, -O and -fno- flags go to both.

    name     of the program
    sources  C++ files; they see the headers of kernels/cuda and of the emulator

    Returns the program's path. Raises AssertionError with the compiler's output.
    """
    engine = sorted((EMULATOR / "src").glob("*.cpp"))
    shared = [flag for flag in flags if flag.startswith(("-D", "-O", "-fno-"))]
    folder = _cache_folder() / f"{name}-{_digest([*sources, *engine], flags)}"
    program = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not program.exists():
            objects = [_compile(source, folder, [*FLAGS, *flags]) for source in sources]
            objects += [_compile(source, folder, [*FLAGS, *shared]) for source in engine]
            partial = folder / "partial"
            _run(["g++", *flags, *map(str, objects), "-pthread", "-o", str(partial)])
            partial.replace(program)  # a program that exists is complete
    return program


def _cache_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"pod-attn-tests-{getpass.getuser()}"


def _digest(sources: Sequence[Path], flags: Sequence[str]) -> str:
    cpu = Path("/proc/cpuinfo")  # -march=native: a program is for one kind of CPU
    features = cpu.read_text().partition("\n\n")[0] if cpu.exists() else os.uname().machine
    kind = [line for line in features.splitlines() if line.startswith(("flags", "Features"))]
    digest = hashlib.sha256(repr([*FLAGS, *flags, kind]).encode())
    headers = [path for folder in INCLUDES for path in folder.rglob("*") if path.is_file()]
    headers += [*(EMULATOR / "src").glob("*.h"), *TESTS.glob("*.h")]
    headers += [path for source in sources for path in source.parent.glob("*.h")]
    for path in sorted({*sources, *headers}):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(source: Path, folder: Path, flags: Sequence[str]) -> Path:
    target = folder / f"{source.stem}.o"
    includes = [f"-I{path}" for path in INCLUDES]
    _run(["g++", *flags, *includes, "-c", "-x", "c++", str(source), "-o", str(target)])
    return target


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
