"""How a bug is planted in a copy of the CUDA kernel; which ones, say the files of mutations.

The kernel's source stays free of them: a copy is changed, and `{on}` in the replacement is true
only while that bug is switched on, so one library holds them all.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pod_integrate.builds import native


class Mutation(NamedTuple):
    """`old`, the only place of this text in `file`, becomes `new`."""

    name: str
    file: str
    old: str
    new: str

    def apply(self, include: Path, number: int) -> None:
        """Plant the bug below include/pod as number `number`; fails when its place has moved."""
        path = include / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise AssertionError(
                f"mutation {self.name!r}: {self.old!r} occurs {text.count(self.old)} times in "
                f"{self.file}, expected once"
            )
        changed = self.new.replace("{on}", f"(pod_mutant == {number})")
        path.write_text(text.replace(self.old, changed))


def plant(folder: Path, bugs: Sequence[Mutation]) -> Path:
    """A copy of kernels/cuda in `folder` with every bug in it; `pod_mutant` = i switches on the
    i-th, counted from 1."""
    cuda = folder / "cuda"
    shutil.copytree(native.sources_dir() / "cuda", cuda)
    for number, bug in enumerate(bugs, start=1):
        bug.apply(cuda / "include" / "pod", number)
    platform = cuda / "include" / "pod" / "ptx" / "platform.cuh"
    switch = 'extern "C" int pod_mutant;\n'
    platform.write_text(
        platform.read_text().replace("namespace pod {", f"{switch}namespace pod {{")
    )
    variant = cuda / "csrc" / "variant.cu"
    exported = '\nextern "C" {\n__attribute__((visibility("default"))) int pod_mutant = 0;\n}\n'
    variant.write_text(variant.read_text() + exported)
    return cuda
