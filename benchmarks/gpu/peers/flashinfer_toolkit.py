"""A CUDA toolkit that FlashInfer compiles and links its kernels with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pod_integrate.builds import cache
from pod_integrate.errors import BuildError

_SAID = 2000
# What FlashInfer links with, in a toolkit.
_RUNTIME, _DRIVER = "lib64/libcudart.so", "lib64/stubs/libcuda.so"
# What nvcc --dryrun begins the line with that names its toolkit.
_TOP = "#$ TOP="
_HEADER = "curand_kernel.h"


def toolkit(compiler: Path, folder: Path) -> Path:
    """A CUDA_HOME to link with: the compiler's own, or links to it where it lacks libraries.

    A pip wheel names its runtime by version only, and a machine without a driver may have no
    libcuda to name.
    """
    home = home_of(compiler)
    if (home / _RUNTIME).exists() and (home / _DRIVER).exists():
        return home
    (folder / _DRIVER).parent.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "include", "nvvm"):
        _link(folder / name, home / name)
    runtimes = sorted((home / "lib").glob("libcudart.so.*"))
    if (home / _RUNTIME).exists():
        runtimes.append(home / _RUNTIME)
    if not runtimes:
        raise BuildError(f"{home / 'lib'} has no libcudart; pip install nvidia-cuda-runtime")
    _link(folder / _RUNTIME, runtimes[-1])
    command = [cache.host_compiler(), "-shared", "-x", "c++", os.devnull]
    soname = "-Wl,-soname,libcuda.so.1"
    subprocess.run([*command, "-o", str(folder / _DRIVER), soname], check=True)
    return folder


def home_of(compiler: Path) -> Path:
    """The toolkit of an nvcc, as it says: what lies in PATH may be a script that calls another."""
    command = [str(compiler), "--dryrun", "-x", "cu", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stderr.splitlines():
        if line.startswith(_TOP):
            return Path(line.removeprefix(_TOP).strip()).resolve()
    raise BuildError(f"{compiler} --dryrun does not name its toolkit: {end_of(done.stderr)}")


def missing_headers(home: Path) -> str:
    """A folder with headers that FlashInfer's kernels include and the toolkit lacks; or nothing.

    A toolkit need not have all of CUDA; torch's wheels bring the rest. Raises BuildError without.
    """
    if (home / "include" / _HEADER).exists():
        return ""
    wheels = (Path(place) / "nvidia" for place in sys.path if place)
    found = [header for place in wheels for header in sorted(place.glob(f"*/include/{_HEADER}"))]
    if not found:
        raise BuildError(
            f"{home}/include has no {_HEADER}, which FlashInfer's kernels include; pip install "
            "nvidia-curand"
        )
    return str(found[0].parent)


def end_of(text: str) -> str:
    """The last of what a compiler said, which names the error."""
    return text[-_SAID:]


def _link(path: Path, target: Path) -> None:
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target)
