"""Builds a variant for the emulated SM: the kernel's own source, a C++ compiler, no GPU."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from pod_integrate.builds import cache, native, nvcc
from pod_integrate.devices.cpu.processor import isa
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.devices.cuda.variants import Variant

# Unique symbols would be shared between the libraries of two variants in one process.
_FLAGS = (
    "-std=c++17 -O2 -fPIC -fvisibility=hidden -fno-gnu-unique -ffp-contract=fast -Wall -Wextra "
    "-Wno-unknown-pragmas"
).split()


def build(variant: Variant, extra_flags: tuple[str, ...] = (), *, arch: str = "sm_90a") -> Path:
    """Compile the variant unless the cache has it, and return its library.

    arch         the kernel as it is for this target: on sm_90a some tiles run on wgmma
    extra_flags  e.g. sanitizers; part of the cache's key
    Raises BuildError with the compiler's output.
    """
    folder = _folder(extra_flags)
    defines = variant.defines(variant.prefill_engine(ARCHITECTURES[arch]))
    library = folder / f"libpod_{variant.name}_{arch}_emulator.so"
    return cache.build_once(library, lambda path: _link(defines, extra_flags, path))


def build_changed(
    variant: Variant,
    cuda: Path,
    library: Path,
    compiler: Sequence[str] | None = None,
    *,
    arch: str = "sm_90a",
) -> None:
    """Compile the variant from `cuda`, kernels/cuda or a changed copy of it, into `library`.

    arch      as in build()
    compiler  command and flags for the kernel alone, instead of what build() takes
    For tests of tests: what must not pass unnoticed. Raises BuildError.
    """
    kernel = library.with_suffix(".o")
    command = compiler or [cache.host_compiler(), *_flags(())]
    defines = variant.defines(variant.prefill_engine(ARCHITECTURES[arch]))
    arguments = [f"-I{cuda / 'include'}", *defines, "-c", "-x", "c++"]
    _run([*command, *arguments], [cuda / "csrc" / "variant.cu"], kernel)
    _compile([kernel, _engine(())], ["-shared", "-pthread"], library)


@functools.lru_cache(maxsize=8)
def _folder(extra_flags: tuple[str, ...]) -> Path:
    root, flags = native.sources_dir(), _flags(extra_flags)
    version = cache.version_of(cache.host_compiler())
    # Headers of the emulator that the kernel sees are in the digest of all of them.
    kernel = nvcc.sources_digest(())
    emulator = cache.digest([root / "emulator"], (".h", ".cpp"), ())
    text = " ".join((kernel, emulator, version, *flags))
    return cache.directory() / f"emulator-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _flags(extra: Iterable[str]) -> list[str]:
    # The fragments' inner loops are vectors; a portable build has none.
    wide = platform.machine() == "x86_64" and isa() != "portable"
    return [*_FLAGS, *(["-march=x86-64-v3"] if wide else []), *extra]


def _compile(sources: Iterable[Path], arguments: Iterable[str], output: Path) -> None:
    _run([cache.host_compiler(), *arguments], sources, output)


def _run(compiler: Iterable[str], sources: Iterable[Path], output: Path) -> None:
    root = native.sources_dir()
    includes = (f"-I{root / 'cuda' / 'include'}", f"-I{root / 'emulator' / 'include'}")
    inputs = (str(source) for source in sources)
    cache.compile_whole([*compiler, *includes, *inputs], output)


def _engine(extra_flags: tuple[str, ...]) -> Path:
    """The emulator itself, compiled once for all variants."""
    path = _folder(extra_flags) / "engine.o"
    sources = sorted((native.sources_dir() / "emulator" / "src").glob("*.cpp"))
    return cache.build_once(
        path, lambda to: _compile(sources, [*_flags(extra_flags), "-r", "-nostdlib"], to)
    )


def _link(defines: Sequence[str], extra_flags: tuple[str, ...], library: Path) -> None:
    kernel = library.with_suffix(".o")
    source = native.sources_dir() / "cuda" / "csrc" / "variant.cu"
    flags = _flags(extra_flags)
    _compile([source], [*flags, *defines, "-c", "-x", "c++"], kernel)
    _compile([kernel, _engine(extra_flags)], [*extra_flags, "-shared", "-pthread"], library)
    kernel.unlink()
