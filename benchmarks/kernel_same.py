"""Compares the machine code of the CUDA kernel in two checkouts, variant by variant.

    python benchmarks/kernel_same.py BEFORE AFTER [--only ARCH-VARIANT]... [--jobs N]

BEFORE and AFTER are checkouts of this repository. Each compiles its variants with its own build
rules, unless its cache has them; all that both ship are compared, or those that --only names, e.g.
`sm_90a-bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1`. For a change that must not change what runs:

identical    the same instructions in the same order
parameters   the same but for the offsets at which they read the kernel's parameters
reordered    as many of each opcode
different    anything else; how many instructions each has, says the result

Prints JSON, and ends with exit code 1 when a kernel has other registers, spills or shared memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pod_integrate.builds import sass

# What a checkout is asked, in its own words: what it ships; or builds variants and tells of them.
_BUILD = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pod_integrate.builds import nvcc
from pod_integrate.builds.report import BuildReport
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, shipped
def build(text):
    arch, _, name = text.partition("-")
    variant = Variant.parse(name)
    library = nvcc.build(variant, limits.ARCHITECTURES[arch], progress=lambda *_: None)
    report = BuildReport.read(library)
    kernels = {
        k.name: {"registers": k.registers, "static_smem": k.static_smem, "stack": k.stack,
                 "spills": k.spill_stores + k.spill_loads}
        for k in report.kernels
    }
    return {"library": str(library), "smem": report.smem, "kernels": kernels}
jobs, *names = sys.argv[1:]
if not names:
    found = [f"{a.name}-{v.name}" for a in limits.ARCHITECTURES.values() for v in shipped(a)]
    print(json.dumps(found))
else:
    with ThreadPoolExecutor(int(jobs)) as pool:
        print(json.dumps(dict(zip(names, pool.map(build, names)))))
"""
_PARAMETER = re.compile(r"c\[0x0\]\[0x[0-9a-f]+\]")
_LABEL = re.compile(r"^@!?U?P\w+\s+")


def ask(tree: Path, jobs: int, *names: str) -> Any:
    """What the checkout's own code answers to _BUILD: names, or what it built by name."""
    env = os.environ | {"PYTHONPATH": str(tree.resolve())}
    command = [sys.executable, "-c", _BUILD, str(jobs), *names]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{tree}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(before: list[str], after: list[str]) -> str:
    """How two kernels' instructions agree; see the head of this file."""
    if before == after:
        return "identical"
    if [hide(line) for line in before] == [hide(line) for line in after]:
        return "parameters"
    return "reordered" if opcodes(before) == opcodes(after) else "different"


def hide(line: str) -> str:
    """An instruction without the offset at which it reads a parameter."""
    return _PARAMETER.sub("c[0x0][parameter]", line)


def opcodes(lines: list[str]) -> Counter[str]:
    """How often each opcode occurs, its modifiers left out."""
    return Counter(re.split(r"[ .]", _LABEL.sub("", line), maxsplit=1)[0] for line in lines)


def look(name: str, sides: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One variant, as both checkouts built it."""
    codes = [sass.instructions(Path(side["library"])) for side in sides]
    kernels: dict[str, dict[str, Any]] = {}
    for kernel in sorted(set(codes[0]) | set(codes[1])):
        before, after = (code.get(kernel, []) for code in codes)
        kernels[kernel] = {
            "code": compare(before, after),
            "instructions": [len(before), len(after)],
            "resources": [side["kernels"].get(kernel) for side in sides],
        }
        if kernels[kernel]["code"] == "different":
            counts = opcodes(before), opcodes(after)
            kernels[kernel]["opcodes"] = {
                op: [counts[0][op], counts[1][op]]
                for op in sorted(counts[0] | counts[1])
                if counts[0][op] != counts[1][op]
            }
    resources = all(k["resources"][0] == k["resources"][1] for k in kernels.values())
    smem = sides[0]["smem"] == sides[1]["smem"]
    same = {"same_resources": resources and smem, "same_smem": smem}
    return {"variant": name, **same, "kernels": kernels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another")
    parser.add_argument("--only", action="append", help="ARCH-VARIANT, again for more")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once")
    wanted = parser.parse_args()
    trees = (wanted.before, wanted.after)
    sass.find_cuobjdump()
    shipped = [ask(tree, wanted.jobs) for tree in trees]
    names = wanted.only or [name for name in shipped[0] if name in shipped[1]]
    built = [ask(tree, wanted.jobs, *names) for tree in trees]
    with ThreadPoolExecutor(wanted.jobs) as pool:
        rows = list(pool.map(lambda name: look(name, [side[name] for side in built]), names))
    verdicts = Counter(kernel["code"] for row in rows for kernel in row["kernels"].values())
    other = [row["variant"] for row in rows if not row["same_resources"]]
    document = {"variants": len(rows), "kernels": dict(verdicts), "other_resources": other}
    print(json.dumps(document | {"rows": rows}, indent=1))
    if other:
        sys.exit(1)


if __name__ == "__main__":
    main()
