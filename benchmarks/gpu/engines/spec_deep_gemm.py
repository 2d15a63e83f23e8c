"""DeepGEMM, which SGLang's draft workers import and no model of this part needs.

When a draft worker captures its graphs, SGLang 0.5.17 compares the draft's attention backend with
those of DeepSeek's sparse attention, and their modules import `deep_gemm` whatever the model. It is
a dependency of SGLang's wheel (sgl-deep-gemm). A machine may lack it all the same: then engines get
a module of that name which holds nothing, so that SGLang stops by name if it asks it for anything.
Products of DeepGEMM are off either way, as in SGLang's own tests of such servers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROBE = "import deep_gemm; print(deep_gemm.__version__)"
_PROBE_SECONDS = 60.0
STAND_IN = '''"""Stands where DeepGEMM is not installed; holds nothing."""


def __getattr__(name):
    raise AttributeError(f"deep_gemm is not installed, this stand-in has no {name!r}")
'''


def environment(folder: Path) -> tuple[dict[str, str], str]:
    """Variables of engines that speculate, and what `deep_gemm` is to them.

    folder  exists; gets the stand-in where the package cannot be imported
    """
    told = {"SGLANG_ENABLE_JIT_DEEPGEMM": "0"}
    found = _probe()
    if found.returncode == 0:
        return told, found.stdout.strip()
    (folder / "deep_gemm.py").write_text(STAND_IN)
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    told["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    why = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
    return told, f"a stand-in: {why}"


def _probe() -> subprocess.CompletedProcess[str]:
    """A process of its own: a broken package may end the one that imports it."""
    command = [sys.executable, "-c", _PROBE]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"not imported in {_PROBE_SECONDS:g} s")
