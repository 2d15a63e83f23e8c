"""What machine code a compiled variant consists of: instructions of each kernel, counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pod_integrate.builds import nvcc
from pod_integrate.builds.report import short_name
from pod_integrate.distribution import install_command
from pod_integrate.errors import BuildError

# Tensor-core products, fragment loads, asynchronous copies: what attention should consist of.
INTENDED = ("HMMA", "LDSM", "LDGSTS")
# On the warpgroup's matrix unit, which reads shared memory itself.
_WARPGROUP = ("HGMMA", "LDGSTS")
# Barriers, and local memory, which is what spills become.
COUNTED = (*INTENDED, "HGMMA", "BAR", "LDL", "STL")
_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.M)
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.M)

_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+([^;]+?)\s*;", re.M)


def find_cuobjdump() -> Path:
    """cuobjdump of PATH, else of the pip wheels.

    Raises BuildError with the remedy when it, or nvdisasm that it calls, is missing.
    """
    found = []
    for program in ("cuobjdump", "nvdisasm"):
        place = shutil.which(program, path=_search_path())
        if place is None:
            raise BuildError(
                f"no {program} in PATH or as a pip wheel; {install_command('cuda')} brings it"
            )
        found.append(Path(place))
    return found[0]


def count_instructions(library: Path) -> dict[str, dict[str, int]]:
    """Kernel name (prefill, decode, fused, merge) -> how often it has each of COUNTED.

    Raises BuildError with cuobjdump's words, or when it shows no kernel.
    """
    return parse_sass(_disassemble(library))


def instructions(library: Path) -> dict[str, list[str]]:
    """Kernel name -> its instructions in order, as cuobjdump prints them, addresses left out.

    Raises BuildError as count_instructions.
    """
    return {
        short_name(name): [" ".join(line.split()) for line in _LINE.findall(code)]
        for name, code in _kernels(_disassemble(library))
    }


def parse_sass(text: str) -> dict[str, dict[str, int]]:
    """As count_instructions, from what `cuobjdump -sass` printed."""
    return {
        short_name(name): {kind: found[kind] for kind in COUNTED}
        for name, code in _kernels(text)
        for found in [Counter(_INSTRUCTION.findall(code))]
    }


def _kernels(text: str) -> list[tuple[str, str]]:
    parts = _FUNCTION.split(text)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _disassemble(library: Path) -> str:
    command = [str(find_cuobjdump()), "-sass", str(library)]
    env = os.environ | {"PATH": _search_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode or not _kernels(done.stdout):
        raise BuildError(f"{' '.join(command)} shows no kernel: {done.stderr or done.stdout}")
    return done.stdout


def missing(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What attention kernels lack of INTENDED, e.g. `decode has no LDSM`; else empty.

    A kernel whose ops all have warpgroup products needs no others.
    """
    kernels = [name for name in ("prefill", "decode", "fused") if name in counts]
    lacks = [
        f"{k} has no {kind}" for k in kernels for kind in _wanted(counts, k) if not counts[k][kind]
    ]
    return [*lacks, *([] if len(kernels) == 3 else [f"only {kernels} of three kernels"])]


def _wanted(counts: Mapping[str, Mapping[str, int]], kernel: str) -> tuple[str, ...]:
    ops = ("prefill", "decode") if kernel == "fused" else (kernel,)
    alone = all(op in counts and counts[op]["HGMMA"] for op in ops)
    return _WARPGROUP if alone else INTENDED


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), *map(str, nvcc.wheel_folders())])
