"""Branches by kind of device outside of pod_integrate/devices: there should be none.

    python -m benchmarks.device_branches [FOLDER]

A branch is a test that tells kinds of devices apart: by a torch device's type, by what a key's
capability looks like, by asking torch for CUDA, or by the name of a kind.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pod_integrate", "tuner", "benchmarks")
INSIDE = ("pod_integrate/devices/",)
KINDS = {"cpu", "cuda", "cpu kernel", "emulator"}
# Attributes that are true of one kind only.
_FLAGS = {"is_cuda", "is_cpu", "_on_cpu", "on_cpu", "on_gpu", "is_gpu"}
# Names of what a kind is called by.
_NAMED = {"device", "type", "kind", "backend", "name", "capability"}


def device_branches(root: Path = ROOT) -> list[str]:
    """`path:line: condition` of every branch, in order."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            if not place.startswith(INSIDE):
                tree = ast.parse(path.read_text(), place)
                tests = {test.lineno: test for test in _conditions(tree) if _tells_kinds(test)}
                found += [f"{place}:{line}: {ast.unparse(t)}" for line, t in sorted(tests.items())]
    return found


def _conditions(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Compare | ast.BoolOp):
            yield node
        elif isinstance(node, ast.match_case) and node.guard is not None:
            yield node.guard


def _tells_kinds(test: ast.expr) -> bool:
    return any(
        _compares_kinds(node) or _asks_for_one(node) or _is_flag(node) for node in ast.walk(test)
    )


def _compares_kinds(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    constants = {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)}
    named = {n.attr for s in sides for n in ast.walk(s) if isinstance(n, ast.Attribute)}
    named |= {n.id for s in sides for n in ast.walk(s) if isinstance(n, ast.Name)}
    return bool(constants & KINDS) and bool(named & _NAMED)


def _asks_for_one(node: ast.AST) -> bool:
    """torch.cuda.is_available(), capability.startswith("sm"), isinstance(machine, Cuda)."""
    if not isinstance(node, ast.Call):
        return False
    text = ast.unparse(node)
    return (
        text == "torch.cuda.is_available()"
        or text.endswith(("capability.startswith('sm')", "is_cuda()"))
        or (text.startswith("isinstance(") and text.endswith((", Cuda)", ", Emulator)")))
    )


def _is_flag(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in _FLAGS


def main() -> None:
    """Print every branch and their number."""
    branches = device_branches(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print(*branches, f"{len(branches)} branches by kind of device", sep="\n")


if __name__ == "__main__":
    main()
