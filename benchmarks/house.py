"""Counts that say what the house is like to live in, for this tree and for an older one.

python -m benchmarks.house                  counts this tree; writes results/house.json, headlines
python -m benchmarks.house --before PATH    ... and an older tree's beside it, by the same rules
python -m benchmarks.house --tree PATH      prints another tree's counts, writes nothing

Read from sources alone: nothing of the tree is imported. What each number counts is said at the
function that counts it.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import _results
from benchmarks._imports import circles

_PRODUCT = ("pod_integrate", "tuner")
_ROOTS = (*_PRODUCT, "benchmarks/gpu")
_NATIVE = {".h", ".cuh", ".cpp", ".cu"}
_KINDS = {"cpu", "cuda", "emulated", "meta"}
# Names that hold the answer to "which kind of device", and the ways to ask torch for it.
_ASKED = re.compile(r"_?(on_cpu|on_gpu|is_cuda|is_cpu|is_gpu|is_emulated)$")
_MACHINES = {"Cuda", "Emulator"}
# The words that the architecture's review found to mean several things.
WORDS = (
    "Answer", "Case", "Check", "Device", "Lengths", "Measurement", "Plan", "Report", "Shape",
    "Timer", "Tuner", "Variant", "Verdict", "Work",
)  # fmt: skip
_SCALAR = "logit_cap"
_COMMAND = "python -m benchmarks.house"


class Source(NamedTuple):
    """One Python file: its path in the tree, its text and its syntax."""

    path: Path
    text: str
    syntax: ast.Module


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tree", type=Path, help="print the counts of this tree only")
    arguments.add_argument("--before", type=Path, help="an older tree to count beside this one")
    given = arguments.parse_args()
    here = Path(__file__).resolve().parent.parent
    if given.tree:
        print(json.dumps(counts(given.tree), indent=2))
        return
    now = counts(here)
    document = {"command": _COMMAND, "counts": now}
    if given.before:
        before = {"command": f"{_COMMAND} --before PATH", "before": counts(given.before)}
        document = {**before, "counts": now}
    print(json.dumps(document, indent=2))
    _results.write("house", document)
    headlines = {
        "house.device_branches_outside": (now["device_branches_outside"], "branches"),
        "house.import_circles": (len(now["import_circles"]), "circles"),
        "house.signatures_per_scalar": (len(now["signatures_per_scalar"]), "signatures"),
    }
    for name, (value, unit) in headlines.items():
        _results.record_headline(name, value, unit, _COMMAND)


def counts(tree: Path) -> dict[str, Any]:
    """Every count of a tree."""
    product = [*sources(tree, _PRODUCT)]
    everything = [*product, *sources(tree, ("benchmarks",))]
    branches = device_branches(product)
    outside = [place for place in branches if not place.startswith("pod_integrate/devices/")]
    return {
        "modules_at_root": {root: _modules_at(tree / root) for root in _ROOTS},
        "import_circles": circles({s.path: s.syntax for s in everything}),
        "device_branches": len(branches),
        "device_branches_outside": len(outside),
        "device_branches_where": dict(collections.Counter(p.split(":")[0] for p in outside)),
        "signatures_per_scalar": signatures(tree, product),
        "types_by_word": {word: n for word in WORDS if (n := _types(word, tree, everything)) > 1},
        "any": sum(len(re.findall(r"\bAny\b", s.text)) for s in product),
        "python_files": _sizes(s.text for s in everything),
        "native_files": _sizes(path.read_text() for path in _native(tree)),
    }


def sources(tree: Path, folders: tuple[str, ...] = _PRODUCT) -> Iterator[Source]:
    """Python files of these folders."""
    for folder in folders:
        for path in sorted((tree / folder).rglob("*.py")):
            text = path.read_text()
            yield Source(path.relative_to(tree), text, ast.parse(text))


def _native(tree: Path) -> Iterator[Path]:
    yield from (p for p in sorted((tree / "kernels").rglob("*")) if p.suffix in _NATIVE)


def _modules_at(folder: Path) -> int:
    """Modules that stand in a folder itself, `__init__` and `__main__` apart."""
    return sum(not path.stem.startswith("__") for path in folder.glob("*.py"))


def _sizes(texts: Iterator[str]) -> dict[str, float]:
    lines = [text.count("\n") for text in texts]
    return {"files": len(lines), "median": statistics.median(lines), "largest": max(lines)}


def device_branches(sources: list[Source]) -> list[str]:
    """`file:line` of each line of the product that asks which kind of device it has.

    Counted: comparing with "cpu", "cuda", "emulated" or "meta" (`==`, `!=`, `in`), reading a name
    or attribute such as `is_cuda` or `_on_cpu`, `torch.cuda.is_available()`, and `isinstance` with
    a machine's class. Storing the answer is the asking; a line counts once.
    """
    found = {
        (source.path, node.lineno)
        for source in sources
        for node in ast.walk(source.syntax)
        if isinstance(node, ast.expr) and _asks(node)
    }
    return [f"{path.as_posix()}:{line}" for path, line in sorted(found)]


def _asks(node: ast.expr) -> bool:
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        return any(word in _KINDS for operand in operands for word in _strings(operand))
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        return bool(_ASKED.match(node.id if isinstance(node, ast.Name) else node.attr))
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        machine = called == "isinstance" and _MACHINES & set(ast.unparse(node.args[1]).split("."))
        return called.endswith("cuda.is_available") or bool(machine)
    return False


def _strings(node: ast.expr) -> Iterator[str]:
    elements = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    for element in elements:
        if isinstance(element, ast.Constant) and isinstance(element.value, str):
            yield element.value


def signatures(tree: Path, files: list[Source], scalar: str = _SCALAR) -> list[str]:
    """Where a scalar of the op is declared on its way to the kernels.

    A parameter of a Python function, a field of a class, an entry of the op's schema; a parameter
    or field in C++. In Python those of the op, its scalars and its devices count, not those of the
    engines, the model and the keys, which speak of it for reasons of their own.
    """
    ways = re.compile(
        r"pod_integrate/(devices/|testing/emul|op|arguments|dispatch|launch|terms/scalars)"
    )
    found = []
    for source in files:
        place = source.path.as_posix()
        if ways.match(place):
            found += [f"{place}:{line}" for line in _declared(source.syntax, scalar)]
    declared = re.compile(rf"\b(?:double|float)\s+{scalar}\b")
    for path in _native(tree):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if declared.search(line.split("//")[0]):
                found.append(f"{path.relative_to(tree).as_posix()}:{number}")
    return found


def _declared(syntax: ast.Module, scalar: str) -> Iterator[int]:
    for node in ast.walk(syntax):
        argument = isinstance(node, ast.arg) and node.arg == scalar
        field = isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == scalar
        schema = isinstance(node, ast.Constant) and f"float {scalar}" in str(node.value)
        if argument or field or schema:
            yield getattr(node, "lineno", 0)


def _types(word: str, tree: Path, sources: list[Source]) -> int:
    """Classes, structs and type aliases that have the word for their whole name."""
    python = sum(
        isinstance(node, ast.ClassDef) and node.name == word
        for source in sources
        for node in ast.walk(source.syntax)
    )
    struct = re.compile(
        rf"^\s*(?:template <[^>]*>\s*)?(?:struct|class) {word}\b[^;]*$", re.MULTILINE
    )
    return python + sum(len(struct.findall(path.read_text())) for path in _native(tree))


if __name__ == "__main__":
    main()
